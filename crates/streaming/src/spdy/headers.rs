//! The name/value block of SYN_STREAM, SYN_REPLY and HEADERS: one zlib stream a direction, over the whole session.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::StreamingError;

/// The dictionary of the SPDY/3 specification.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Most bytes of one block after decompression; more is taken for an attack.
const MAX_BLOCK_BYTES: usize = 64 * 1024;
/// Most pairs in one block.
const MAX_PAIRS: u32 = 128;

/// The headers of a stream, in order. Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// From name and value pairs; names are lowered.
    pub fn new(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect())
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Encoder(Compress);

impl Encoder {
    pub(crate) fn new() -> Result<Encoder, StreamingError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(DICTIONARY).map_err(|_| StreamingError::Spdy("dictionary refused"))?;
        Ok(Encoder(compress))
    }

    pub(crate) fn encode(&mut self, headers: &Headers) -> Result<Vec<u8>, StreamingError> {
        let mut plain = Vec::with_capacity(256);
        plain.extend_from_slice(&(headers.0.len() as u32).to_be_bytes());
        for (name, value) in &headers.0 {
            for text in [name, value] {
                plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
                plain.extend_from_slice(text.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 128);
        let before = self.0.total_in();
        loop {
            let done = (self.0.total_in() - before) as usize;
            let rest = plain.get(done..).unwrap_or_default();
            self.0
                .compress_vec(rest, &mut block, FlushCompress::Sync)
                .map_err(|_| StreamingError::Spdy("header compression failed"))?;
            let all_in = (self.0.total_in() - before) as usize == plain.len();
            if all_in && block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(256);
        }
    }
}

pub(crate) struct Decoder(Decompress);

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder(Decompress::new(true))
    }

    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Headers, StreamingError> {
        let plain = self.inflate(block)?;
        let mut rest = plain.as_slice();
        let count = take_u32(&mut rest)?;
        if count > MAX_PAIRS {
            return Err(StreamingError::Spdy("too many headers"));
        }
        let mut pairs = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let name = take_text(&mut rest)?.to_ascii_lowercase();
            let value = take_text(&mut rest)?;
            // Several values of one name are joined by NUL; nothing here sends more than one.
            let value = value.split('\0').next().unwrap_or_default().to_owned();
            pairs.push((name, value));
        }
        Ok(Headers(pairs))
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, StreamingError> {
        const BAD: StreamingError = StreamingError::Spdy("header block is not valid zlib");
        let mut plain = Vec::with_capacity(1024);
        let before = self.0.total_in();
        loop {
            let done = (self.0.total_in() - before) as usize;
            let rest = block.get(done..).unwrap_or_default();
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(StreamingError::Spdy("header stream ended")),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| BAD)?;
                    continue;
                }
                Err(_) => return Err(BAD),
            }
            let all_in = (self.0.total_in() - before) as usize == block.len();
            if all_in && plain.len() < plain.capacity() {
                return Ok(plain);
            }
            if plain.len() == plain.capacity() {
                if plain.len() >= MAX_BLOCK_BYTES {
                    return Err(StreamingError::Spdy("header block too large"));
                }
                plain.reserve(plain.len());
            } else if (self.0.total_in() - before) as usize == done {
                return Err(BAD);
            }
        }
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, StreamingError> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(StreamingError::Spdy("header block too short"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, StreamingError> {
    let length = take_u32(rest)? as usize;
    let (head, tail) = rest.split_at_checked(length).ok_or(StreamingError::Spdy("header block too short"))?;
    *rest = tail;
    std::str::from_utf8(head).map_err(|_| StreamingError::Spdy("header is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// zlib's own output with the dictionary, two blocks of one session, for `streamtype: error` and `streamtype: stdin`.
    const GOLDEN: [&str; 2] =
        ["78bbe3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff", "c22e555c02cc2e00000000ffff"];

    #[test]
    fn decodes_what_zlib_wrote() {
        let mut decoder = Decoder::new();
        for (block, wanted) in GOLDEN.iter().zip(["error", "stdin"]) {
            let bytes: Vec<u8> =
                (0..block.len()).step_by(2).map(|at| u8::from_str_radix(&block[at..at + 2], 16).unwrap()).collect();
            assert_eq!(decoder.decode(&bytes).unwrap().get("streamType"), Some(wanted));
        }
    }

    #[test]
    fn blocks_of_one_session_round_trip_in_order() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new());
        for number in 0..200 {
            let long = "x".repeat(number * 37);
            let headers = Headers::new(&[("streamType", "data"), ("port", "8080"), ("requestID", &long)]);
            assert_eq!(decoder.decode(&encoder.encode(&headers).unwrap()).unwrap(), headers);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut encoder = Encoder::new().unwrap();
        let bomb = encoder.encode(&Headers::new(&[("a", &"0".repeat(1 << 20))])).unwrap();
        assert!(bomb.len() < 16 * 1024);
        assert!(Decoder::new().decode(&bomb).is_err());
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Decoder::new().decode(&[0; 16]).is_err());
        assert!(Decoder::new().decode(&[]).is_err());
    }
}
