//! The one mechanism behind every metric: a row that describes it, and its series by the values of its labels.
//!
//! A series is found by hashing the values where they lie and is counted without locks; whoever counts often keeps the series.
//! A metric that has [`MAX_SERIES`] counts what is new under one more, whose labels all are `unexpected`, so that no client can
//! make the metrics grow.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indexmap::{Equivalent, IndexMap};
use parking_lot::RwLock;

/// Series of one metric.
const MAX_SERIES: usize = 10_000;
/// The labels' value for those beyond.
const UNEXPECTED: &str = "unexpected";

/// What a metric promises: the beginning of its help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    Alpha,
    Beta,
    Stable,
    /// Of Prometheus' own clients, which promise nothing.
    Unmarked,
}

impl Stability {
    /// As upstream writes it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Stability::Alpha => Some("ALPHA"),
            Stability::Beta => Some("BETA"),
            Stability::Stable => Some("STABLE"),
            Stability::Unmarked => None,
        }
    }
}

/// A metric: a row of the table.
#[derive(Debug)]
pub struct Descriptor {
    pub name: &'static str,
    pub kind: &'static str,
    pub stability: Stability,
    /// In the order of the alphabet, in which they are written.
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets.
    pub bounds: &'static [f64],
    pub help: &'static str,
}

/// What a series holds.
pub(crate) trait Sample: Send + Sync {
    /// As the text form names the type.
    const KIND: &'static str;

    fn new(bounds: &'static [f64]) -> Self;

    /// Appends its lines; `labels` is empty or a list without braces.
    fn write(&self, out: &mut String, name: &str, labels: &str);
}

/// What only grows.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Sample for Counter {
    const KIND: &'static str = "counter";

    fn new(_bounds: &'static [f64]) -> Self {
        Counter(AtomicU64::new(0))
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        line(out, name, labels, &self.get().to_string());
    }
}

/// What goes up and down.
#[derive(Debug)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn add(&self, value: f64) {
        add(&self.0, value);
    }
}

impl Sample for Gauge {
    const KIND: &'static str = "gauge";

    fn new(_bounds: &'static [f64]) -> Self {
        Gauge(AtomicU64::new(0.0_f64.to_bits()))
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        line(out, name, labels, &number(f64::from_bits(self.0.load(Ordering::Relaxed))));
    }
}

/// What only grows and is counted elsewhere.
#[derive(Debug)]
pub(crate) struct Total(Gauge);

impl Total {
    pub(crate) fn set(&self, value: f64) {
        self.0.set(value);
    }
}

impl Sample for Total {
    const KIND: &'static str = Counter::KIND;

    fn new(bounds: &'static [f64]) -> Self {
        Total(Gauge::new(bounds))
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        self.0.write(out, name, labels);
    }
}

/// Counts by size.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        add(&self.sum, value);
    }

    pub(crate) fn took(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }
}

impl Sample for Histogram {
    const KIND: &'static str = "histogram";

    fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0.0_f64.to_bits()) }
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        let bounds = self.bounds.iter().map(|bound| number(*bound)).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.buckets) {
            total += count.load(Ordering::Relaxed);
            line(out, &bucket, &format!("{labels}{comma}le=\"{bound}\""), &total.to_string());
        }
        line(out, &format!("{name}_sum"), labels, &number(f64::from_bits(self.sum.load(Ordering::Relaxed))));
        line(out, &format!("{name}_count"), labels, &total.to_string());
    }
}

fn add(sum: &AtomicU64, value: f64) {
    // The closure always has a value, so this never fails.
    let _ =
        sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some((f64::from_bits(bits) + value).to_bits()));
}

/// The values of a series' labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels<const N: usize>([Box<str>; N]);

/// The same, still where they lie.
#[derive(PartialEq, Eq, Hash)]
struct Values<'a, const N: usize>([&'a str; N]);

impl<const N: usize> Equivalent<Labels<N>> for Values<'_, N> {
    fn equivalent(&self, labels: &Labels<N>) -> bool {
        self.0.iter().zip(&labels.0).all(|(value, label)| *value == &**label)
    }
}

/// Something for each set of values, made when it is first asked for.
#[derive(Debug)]
pub(crate) struct Interned<T, const N: usize> {
    known: RwLock<IndexMap<Labels<N>, Arc<T>>>,
    unexpected: AtomicU64,
}

impl<T, const N: usize> Default for Interned<T, N> {
    fn default() -> Self {
        Interned { known: RwLock::default(), unexpected: AtomicU64::new(0) }
    }
}

impl<T, const N: usize> Interned<T, N> {
    pub(crate) fn get(&self, values: [&str; N], make: impl FnOnce([&str; N]) -> T) -> Arc<T> {
        {
            let known = self.known.read();
            if let Some(found) = known.get(&Values(values)) {
                return found.clone();
            }
            if known.len() >= MAX_SERIES
                && let Some(beyond) = known.get(&Values([UNEXPECTED; N]))
            {
                self.unexpected.fetch_add(1, Ordering::Relaxed);
                return beyond.clone();
            }
        }
        let mut known = self.known.write();
        let full = known.len() >= MAX_SERIES && !known.contains_key(&Values(values));
        let values = if full { [UNEXPECTED; N] } else { values };
        self.unexpected.fetch_add(u64::from(full), Ordering::Relaxed);
        known.entry(Labels(values.map(Into::into))).or_insert_with(|| Arc::new(make(values))).clone()
    }

    fn sorted(&self) -> Vec<(Labels<N>, Arc<T>)> {
        let mut all: Vec<_> = self.known.read().iter().map(|(labels, value)| (labels.clone(), value.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// A metric's series.
#[derive(Debug)]
pub(crate) struct Family<T, const N: usize> {
    descriptor: &'static Descriptor,
    series: Interned<T, N>,
}

impl<T: Sample, const N: usize> Family<T, N> {
    pub(crate) fn new(descriptor: &'static Descriptor) -> Self {
        let family = Family { descriptor, series: Interned::default() };
        if N == 0 {
            // What has no labels is there from the beginning.
            family.with([""; N]);
        }
        family
    }

    /// The series of these labels, in the order of the table.
    pub(crate) fn with(&self, values: [&str; N]) -> Arc<T> {
        self.series.get(values, |_| T::new(self.descriptor.bounds))
    }
}

impl<const N: usize> Family<Gauge, N> {
    /// What is so now, in the place of what was.
    pub(crate) fn replace(&self, now: impl IntoIterator<Item = ([String; N], f64)>) {
        let series = now.into_iter().map(|(labels, value)| {
            let gauge = Gauge::new(&[]);
            gauge.set(value);
            (Labels(labels.map(String::into_boxed_str)), Arc::new(gauge))
        });
        *self.series.known.write() = series.take(MAX_SERIES).collect();
    }
}

/// A metric as a scraper reads it.
pub(crate) trait Exposed: Send + Sync {
    fn descriptor(&self) -> &'static Descriptor;
    /// How often there were labels beyond those that are counted.
    fn unexpected(&self) -> u64;
    fn write(&self, out: &mut String);
}

impl<T: Sample, const N: usize> Exposed for Family<T, N> {
    fn descriptor(&self) -> &'static Descriptor {
        self.descriptor
    }

    fn unexpected(&self) -> u64 {
        self.series.unexpected.load(Ordering::Relaxed)
    }

    fn write(&self, out: &mut String) {
        let series = self.series.sorted();
        if series.is_empty() {
            return;
        }
        let Descriptor { name, kind, stability, help, labels: names, .. } = self.descriptor;
        let mark = stability.name().map(|stability| format!("[{stability}] ")).unwrap_or_default();
        // Writing into a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {mark}{help}\n# TYPE {name} {kind}");
        for (Labels(values), sample) in series {
            let mut labels = String::new();
            for (name, value) in names.iter().zip(&values) {
                let comma = if labels.is_empty() { "" } else { "," };
                let _ = write!(labels, "{comma}{name}=\"{}\"", Escaped(value));
            }
            sample.write(out, name, &labels);
        }
    }
}

fn line(out: &mut String, name: &str, labels: &str, value: &str) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// A label's value as the text form has it.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// A number as Go writes it, for bounds are texts that queries match.
fn number(value: f64) -> String {
    let plain = value == 0.0 || (1e-4..1e6).contains(&value.abs());
    if plain || !value.is_finite() {
        return match value {
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            value => value.to_string(),
        };
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A part of the table: `field: Type(bounds), Stability, "name", ["label", …], "help";` a metric.
macro_rules! families {
    ($(#[$doc:meta])* $part:ident {
        $($field:ident: $kind:ident $(($bounds:expr))?, $stability:ident, $name:literal, [$($label:literal),*], $help:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $part {
            $(pub(crate) $field: $crate::metrics::family::Family<
                $crate::metrics::family::$kind, { <[&str]>::len(&[$($label),*]) }
            >,)*
        }

        impl Default for $part {
            fn default() -> Self {
                use $crate::metrics::family::{Descriptor, Family, Sample, Stability};
                $part {
                    $($field: Family::new(const {
                        &Descriptor {
                            name: $name,
                            kind: <$crate::metrics::family::$kind as Sample>::KIND,
                            stability: Stability::$stability,
                            labels: &[$($label),*],
                            bounds: $crate::metrics::family::families!(@bounds $($bounds)?),
                            help: $help,
                        }
                    }),)*
                }
            }
        }

        impl $part {
            pub(crate) fn all(&self) -> Vec<&dyn $crate::metrics::family::Exposed> {
                vec![$(&self.$field),*]
            }
        }
    };
    (@bounds) => { &[] };
    (@bounds $bounds:expr) => { &$bounds };
}
pub(crate) use families;

#[cfg(test)]
mod tests {
    use super::*;

    families! {
        /// For the tests below.
        Samples {
            counted: Counter, Stable, "counted_total", ["a", "b"], "Counts.";
            sized: Histogram([0.0000005, 1.0, 1e6]), Alpha, "sized", [], "Sizes.";
        }
    }

    #[test]
    fn the_text_is_that_of_gos_client() {
        let samples = Samples::default();
        samples.counted.with(["z", "q\"\\\n"]).add(2);
        samples.counted.with(["a", ""]).inc();
        for value in [1.0, 2.0, 3e6] {
            samples.sized.with([]).observe(value);
        }
        let mut out = String::new();
        samples.all().iter().for_each(|family| family.write(&mut out));
        let wanted = "# HELP counted_total [STABLE] Counts.\n\
                      # TYPE counted_total counter\n\
                      counted_total{a=\"a\",b=\"\"} 1\n\
                      counted_total{a=\"z\",b=\"q\\\"\\\\\\n\"} 2\n\
                      # HELP sized [ALPHA] Sizes.\n\
                      # TYPE sized histogram\n\
                      sized_bucket{le=\"5e-07\"} 0\n\
                      sized_bucket{le=\"1\"} 1\n\
                      sized_bucket{le=\"1e+06\"} 2\n\
                      sized_bucket{le=\"+Inf\"} 3\n\
                      sized_sum 3.000003e+06\n\
                      sized_count 3\n";
        assert_eq!(out, wanted);
    }

    #[test]
    fn numbers_are_written_as_go_does() {
        let texts: Vec<String> =
            [0.0, -1.0, 0.0001, 0.00005, 2592000.0, 999999.0, 1.5, 1e21, f64::INFINITY].map(number).into();
        assert_eq!(texts, ["0", "-1", "0.0001", "5e-05", "2.592e+06", "999999", "1.5", "1e+21", "+Inf"]);
    }

    #[test]
    fn nobody_makes_the_metrics_grow() {
        let samples = Samples::default();
        for number in 0..MAX_SERIES + 5 {
            samples.counted.with([&number.to_string(), ""]).inc();
        }
        assert_eq!(samples.counted.with([UNEXPECTED, UNEXPECTED]).get(), 5);
        assert_eq!((samples.counted.unexpected(), samples.counted.series.known.read().len()), (5, MAX_SERIES + 1));
        assert_eq!(samples.counted.with(["0", ""]).get(), 1, "what is known is counted as before");
    }
}
