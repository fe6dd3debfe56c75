//! The payload of an ADB block: tagged words that point into it (formats.md, 4.4 and 4.5).

use super::AdbError;
use crate::format::FormatError;
use std::cell::Cell;
use std::ops::Range;

/// How many times as much as a payload has may be followed in it: lists of dependencies consist of
/// words that point to a few objects.
const SHARED: u64 = 64;
/// What may be followed in the smallest one, in bytes.
const LEAST: u64 = 16 << 20;

/// A payload whose values can be followed.
///
/// Many values may point to the same bytes, so what is followed is counted, and stops at a bound:
/// else a few megabytes could be read as terabytes.
#[derive(Debug)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    left: Cell<u64>,
    bound: u64,
}

/// A value: a type and a number that is the value, or where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(u32);

/// The fields of an object, or the elements of an array.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a> {
    payload: &'a Payload<'a>,
    start: usize,
    /// The words behind the count.
    words: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Takes a payload; no more than `most` bytes are followed in it, nor much more than sharing
    /// values can save an honest writer.
    ///
    /// # Errors
    /// [`AdbError`] if it is too short, or of another version.
    pub fn new(bytes: &'a [u8], most: u64) -> Result<Self, FormatError> {
        let bound = most.min((bytes.len() as u64) * SHARED + LEAST);
        if bytes.len() < 16 {
            return Err(AdbError::Block.into());
        }
        if bytes[0] != 0 {
            return Err(AdbError::Version.into());
        }
        Ok(Self {
            bytes,
            left: Cell::new(bound),
            bound,
        })
    }

    /// Goes on with a payload that was taken before, of which so much may still be followed.
    pub fn resume(bytes: &'a [u8], left: u64) -> Self {
        Self {
            bytes,
            left: Cell::new(left),
            bound: left,
        }
    }

    /// Counts what is made of something that was found.
    fn charge(&self, cost: u64) -> Result<(), FormatError> {
        let left = self.left.get().checked_sub(cost);
        let (what, limit) = ("metadata", self.bound);
        self.left
            .set(left.ok_or(FormatError::TooLarge { what, limit })?);
        Ok(())
    }

    /// Returns how much may still be followed.
    pub fn left(&self) -> u64 {
        self.left.get()
    }

    /// Returns slots by their place, [`Slots::place`].
    pub fn slots_at(&'a self, place: Range<usize>) -> Slots<'a> {
        Slots {
            payload: self,
            start: place.start,
            words: self.bytes.get(place).unwrap_or_default(),
        }
    }

    /// Returns the fields of the root object.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn root(&'a self) -> Result<Slots<'a>, FormatError> {
        let word = self.word(4)?;
        self.slots(Value(word))
    }

    /// Returns the bytes at an offset.
    fn bytes(&self, at: usize, count: usize) -> Result<&'a [u8], FormatError> {
        self.charge(count as u64 + 8)?;
        let end = at.checked_add(count);
        let found = end.and_then(|end| self.bytes.get(at..end));
        found.ok_or_else(|| AdbError::schema(format!("{at} leads out of the block")).into())
    }

    fn word(&self, at: usize) -> Result<u32, FormatError> {
        let bytes = self.bytes(at, 4)?.try_into().expect("four bytes");
        Ok(u32::from_le_bytes(bytes))
    }

    fn number(&self, value: Value) -> Result<u64, FormatError> {
        let at = value.aligned();
        match value.kind() {
            0 if value.0 == 0 => Ok(0),
            1 => Ok(value.low() as u64),
            2 => Ok(u64::from(self.word(at?)?)),
            3 => {
                let bytes = self.bytes(at?, 8)?.try_into().expect("eight bytes");
                Ok(u64::from_le_bytes(bytes))
            }
            _ => Err(value.wrong("a number")),
        }
    }

    fn blob(&self, value: Value) -> Result<&'a [u8], FormatError> {
        let at = value.low();
        let (head, length) = match value.kind() {
            0 if value.0 == 0 => return Ok(&[]),
            8 => (1, self.bytes(at, 1)?[0].into()),
            9 => {
                let length = self.bytes(at, 2)?.try_into().expect("two bytes");
                (2, u16::from_le_bytes(length).into())
            }
            10 => (4, self.word(at)? as usize),
            _ => return Err(value.wrong("bytes")),
        };
        self.bytes(at + head, length)
    }

    fn slots(&'a self, value: Value) -> Result<Slots<'a>, FormatError> {
        let (start, words): (_, &[u8]) = match value.kind() {
            0 if value.0 == 0 => (0, &[]),
            // Arrays are often marked as objects.
            13 | 14 => {
                let at = value.aligned()?;
                let count = (self.word(at)? as usize).checked_sub(1);
                let count = count.ok_or_else(|| AdbError::schema("a list without its count"))?;
                let size = count.saturating_mul(4);
                (at + 4, self.bytes(at + 4, size)?)
            }
            _ => return Err(value.wrong("a list")),
        };
        Ok(Slots {
            payload: self,
            start,
            words,
        })
    }
}

impl Value {
    fn kind(self) -> u32 {
        self.0 >> 28
    }

    fn low(self) -> usize {
        (self.0 & 0x0fff_ffff) as usize
    }

    /// Returns the offset of something that begins on a border of four bytes.
    fn aligned(self) -> Result<usize, FormatError> {
        let at = self.low();
        match at % 4 {
            0 => Ok(at),
            _ => Err(AdbError::schema(format!("{at} is not aligned")).into()),
        }
    }

    fn wrong(self, wanted: &str) -> FormatError {
        AdbError::schema(format!("type {} instead of {wanted}", self.kind())).into()
    }

    /// Returns whether there is nothing.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl<'a> Slots<'a> {
    /// Returns how many values there are.
    pub fn len(self) -> usize {
        self.words.len() / 4
    }

    /// Returns whether there are none.
    pub fn is_empty(self) -> bool {
        self.words.is_empty()
    }

    /// Returns where they are in the payload.
    pub fn place(self) -> Range<usize> {
        self.start..self.start + self.words.len()
    }

    /// Returns a slot, counted from 1; those that are not there are null.
    pub fn get(self, number: usize) -> Value {
        let at = number.checked_sub(1).and_then(|at| at.checked_mul(4));
        let word = at.and_then(|at| self.words.get(at..)?.first_chunk());
        Value(word.map_or(0, |word| u32::from_le_bytes(*word)))
    }

    /// Counts so many bytes of memory that are taken for what is here.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] beyond the bound.
    pub fn charge(self, cost: u64) -> Result<(), FormatError> {
        self.payload.charge(cost)
    }

    /// Returns a number, 0 if there is none.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn number(self, number: usize) -> Result<u64, FormatError> {
        self.payload.number(self.get(number))
    }

    /// Returns bytes, none if there are none.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn blob(self, number: usize) -> Result<&'a [u8], FormatError> {
        self.payload.blob(self.get(number))
    }

    /// Returns an object or array, empty if there is none.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn slots(self, number: usize) -> Result<Slots<'a>, FormatError> {
        self.payload.slots(self.get(number))
    }
}
