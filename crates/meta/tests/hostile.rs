//! Bytes from anywhere: known inputs, and seeds changed at random (a fixed seed a run, bounded in number). The fuzz targets in
//! `fuzz/` look further with the same functions.

#[path = "hostile/mod.rs"]
mod targets;

use targets::TARGETS;

/// Inputs a target, changed each.
const ROUNDS: u64 = 3000;

/// Well-formed inputs that changes start from; the first byte is what the targets choose by.
const SEEDS: &[&[u8]] = &[
    b"\x05{\"apiVersion\":\"v1\",\"kind\":\"X\",\"metadata\":{\"name\":\"a\",\"labels\":{\"a\":\"b\"},\"creationTimestamp\":null},\"spec\":{\"replicas\":1,\"ports\":[{\"port\":80,\"targetPort\":\"http\"}]},\"data\":{\"a\":\"AAEC\"}}",
    b"\x40apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: 2\n  template:\n    spec:\n      containers:\n      - {name: c, image: i, resources: {limits: {cpu: 500m}}}\n",
    b"\x00[{\"op\":\"add\",\"path\":\"/spec/template/spec/containers/-\",\"value\":{\"name\":\"e\"}},{\"op\":\"copy\",\"from\":\"/spec\",\"path\":\"/x\"},{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":1}]",
    b"\x02{\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"x.y/z\"]},\"spec\":{\"template\":{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"d\"},{\"name\":\"c\"}],\"containers\":[{\"name\":\"c\",\"$patch\":\"delete\"}]}},\"strategy\":{\"$retainKeys\":[\"type\"],\"type\":\"Recreate\"}}}",
    b"\x01{\"spec\":{\"replicas\":null,\"selector\":{\"matchLabels\":{\"a\":null}}}}",
    b"a=b,c!=d,e in (f,g),!h,i>3,metadata.name==x,spec.y!=z",
    b"2024-01-02T03:04:05.678Z",
    b"-1.5e3Ki",
];

/// Inputs that once went wrong, by target.
const FOUND: &[(&str, &[u8])] = &[];

/// A small generator of random numbers (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (bound.max(1) as u64)) as usize
    }
}

const PIECES: &[&[u8]] = &[
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"0",
    b"-1",
    b"1e999",
    b"\"$patch\":\"replace\"",
    b"\"$patch\":\"merge\"",
    b"~1",
    b"\xff",
    b"\0",
    b"k8s\0",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!x ",
    b"\"name\":\"c\"",
    b"true",
    b"9223372036854775808",
    b",",
    b"%00",
    b"\\ud800",
];

fn change(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            1 => bytes.truncate(at),
            2 if at < bytes.len() => drop(bytes.drain(at..(at + 1 + random.below(8)).min(bytes.len()))),
            3 => {
                let end = (at + random.below(24)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

/// Objects at random, as messages, for the target that reads them.
fn messages() -> Vec<Vec<u8>> {
    use kminik_meta::{protobuf, schema};
    let object = serde_json::json!({
        "metadata": {"name": "a", "labels": {"a": "b"}, "creationTimestamp": "2024-01-02T03:04:05Z"},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}}},
        "data": {"a": "AAEC"}, "items": [{"metadata": {"name": "x"}}],
    });
    let encode = |(at, (_, schema)): (usize, (_, &schema::Schema))| {
        [&[at as u8][..], &protobuf::encode(&object, schema)].concat()
    };
    schema::kinds().enumerate().take(256).map(encode).collect()
}

#[test]
fn nothing_from_anywhere_panics() {
    let mut seeds: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.to_vec()).collect();
    seeds.extend(messages());
    for (name, target) in TARGETS {
        for (_, input) in FOUND.iter().filter(|(of, _)| of == name) {
            target(input);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ name.len() as u64);
        for _ in 0..ROUNDS {
            // The messages are many; the texts shall not be rare beside them.
            let seed = match random.below(2) {
                0 => &seeds[random.below(seeds.len())],
                _ => &seeds[random.below(SEEDS.len())],
            };
            let input = change(&mut random, seed);
            let caught = std::panic::catch_unwind(|| target(&input));
            assert!(
                caught.is_ok(),
                "{name} panics at {:?}",
                String::from_utf8_lossy(&input).escape_debug().to_string()
            );
        }
    }
}
