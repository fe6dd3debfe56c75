//! The stream of blocks of a v3 file, decompressed on the way (formats.md, 4.1 to 4.3).

use super::AdbError;
use crate::format::FormatError;
use flate2::bufread::DeflateDecoder;
use std::io::{self, BufRead, BufReader, Read};

/// Bytes inflated at once for block headers; larger reads pass the buffer by.
const BUFFER: usize = 16 << 10;

/// The largest window of a zstd stream, as a power of two: that of the highest level.
const WINDOW: u32 = 27;

/// The bytes that every decompressed file begins with.
const MAGIC: [u8; 4] = *b"ADB.";

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockKind {
    /// The value tree.
    Adb,
    /// A signature.
    Signature,
    /// The content of a file.
    Data,
}

/// A block whose payload comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it holds.
    pub kind: BlockKind,
    /// Bytes of payload, as it claims.
    pub size: u64,
}

/// A v3 file, block by block; `Read` gives the payload of the current block.
pub struct Container<R: BufRead> {
    stream: Stream<R>,
    schema: [u8; 4],
    last: Option<BlockKind>,
    /// Bytes of the current payload that were not read yet, and the zero bytes after it.
    remaining: u64,
    padding: u64,
}

/// What comes out of the compression.
enum Stream<R: BufRead> {
    Plain(Counting<R>),
    Deflate(BufReader<DeflateDecoder<Counting<R>>>),
    Zstd(BufReader<zstd::Decoder<'static, Counting<R>>>),
}

/// Counts the bytes of the file.
struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: BufRead> Container<R> {
    /// Begins a file.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn open(source: R) -> Result<Self, FormatError> {
        let mut source = Counting {
            inner: source,
            count: 0,
        };
        let mut start = [0; 4];
        source.read_exact(&mut start)?;
        let compression = match start {
            MAGIC => 0,
            [b'A', b'D', b'B', b'd'] => 1,
            [b'A', b'D', b'B', b'c'] => {
                let mut choice = [0; 2];
                source.read_exact(&mut choice)?;
                choice[0]
            }
            _ => return Err(AdbError::Header.into()),
        };
        let mut stream = match compression {
            0 => Stream::Plain(source),
            1 => {
                let decoder = DeflateDecoder::new(source);
                Stream::Deflate(BufReader::with_capacity(BUFFER, decoder))
            }
            2 => {
                let mut decoder = zstd::Decoder::with_buffer(source)?.single_frame();
                decoder.window_log_max(WINDOW)?;
                Stream::Zstd(BufReader::with_capacity(BUFFER, decoder))
            }
            _ => return Err(AdbError::Compression.into()),
        };
        if start != MAGIC {
            let mut magic = [0; 4];
            stream.read_exact(&mut magic)?;
            if magic != MAGIC {
                return Err(AdbError::Header.into());
            }
        }
        let mut schema = [0; 4];
        stream.read_exact(&mut schema)?;
        Ok(Self {
            stream,
            schema,
            last: None,
            remaining: 0,
            padding: 0,
        })
    }

    /// Returns the bytes that say what is in the file.
    pub fn schema(&self) -> [u8; 4] {
        self.schema
    }

    /// Moves to the next block; `None` at the end of the file.
    ///
    /// # Errors
    /// [`FormatError`] if the file ends within a block, or blocks come in a wrong order.
    pub fn next_block(&mut self) -> Result<Option<Block>, FormatError> {
        let rest = self.remaining.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(FormatError::UnexpectedEnd);
        }
        (self.remaining, self.padding) = (0, 0);
        let Some(word) = self.stream.word()? else {
            return match self.last {
                None => Err(AdbError::Block.into()),
                Some(_) => Ok(None),
            };
        };
        let (kind, header, raw) = match word >> 30 {
            3 => {
                let mut rest = [0; 12];
                self.stream.read_exact(&mut rest)?;
                let size = rest[4..].try_into().expect("eight bytes");
                (word & 0x3fff_ffff, 16, u64::from_le_bytes(size))
            }
            kind => (kind, 4, u64::from(word & 0x3fff_ffff)),
        };
        let kind = match kind {
            0 => BlockKind::Adb,
            1 => BlockKind::Signature,
            2 => BlockKind::Data,
            _ => return Err(AdbError::Block.into()),
        };
        let fits = match (self.last, kind) {
            (None, kind) => kind == BlockKind::Adb,
            (Some(_), BlockKind::Adb) => false,
            (Some(last), kind) => last <= kind,
        };
        let size = raw.checked_sub(header).filter(|_| fits);
        let size = size.ok_or(AdbError::Block)?;
        self.last = Some(kind);
        (self.remaining, self.padding) = (size, raw.wrapping_neg() % 8);
        Ok(Some(Block { kind, size }))
    }

    /// Reads the payload of the current block into memory.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] beyond `limit` bytes.
    pub fn payload(&mut self, limit: u64, what: &'static str) -> Result<Vec<u8>, FormatError> {
        if self.remaining > limit {
            return Err(FormatError::TooLarge { what, limit });
        }
        let mut payload = Vec::new();
        let wanted = self.remaining;
        self.by_ref().take(wanted).read_to_end(&mut payload)?;
        Ok(payload)
    }

    /// Checks that nothing follows the last block, and returns the size of the file in bytes.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn finish(mut self) -> Result<u64, FormatError> {
        if self.next_block()?.is_some() {
            return Err(AdbError::Block.into());
        }
        let mut source = match self.stream {
            Stream::Plain(source) => source,
            Stream::Deflate(decoder) => decoder.into_inner().into_inner(),
            Stream::Zstd(decoder) => decoder.into_inner().finish(),
        };
        match source.fill_buf()?.is_empty() {
            true => Ok(source.count),
            false => Err(FormatError::Invalid),
        }
    }
}

impl<R: BufRead> Read for Container<R> {
    /// Reads payload of the current block; an early end of the file is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

impl<R: BufRead> Stream<R> {
    /// Reads a number, `None` at the end.
    fn word(&mut self) -> Result<Option<u32>, FormatError> {
        let mut word = [0; 4];
        let mut filled = 0;
        while filled < word.len() {
            match self.read(&mut word[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(FormatError::UnexpectedEnd),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A stream without its own end is one whose bytes all came; apk takes it, too.
                Err(error) if filled == 0 && error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(u32::from_le_bytes(word)))
    }
}

impl<R: BufRead> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Deflate(source) => source.read(buffer),
            // What zstd does not understand comes as an error of no kind.
            Self::Zstd(source) => source.read(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::Other => io::ErrorKind::InvalidData.into(),
                _ => error,
            }),
        }
    }
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.count += count as u64;
        self.inner.consume(count);
    }
}

/// Appends the header of a block as a writer does, and returns how many zero bytes follow it.
pub(super) fn push_header(out: &mut Vec<u8>, kind: u32, size: u64) -> usize {
    let raw = match u32::try_from(size + 4) {
        Ok(raw) if raw < 1 << 30 => {
            out.extend((kind << 30 | raw).to_le_bytes());
            u64::from(raw)
        }
        _ => {
            out.extend((3 << 30 | kind).to_le_bytes());
            out.extend([0; 4]);
            out.extend((size + 16).to_le_bytes());
            size + 16
        }
    };
    (raw.wrapping_neg() % 8) as usize
}
