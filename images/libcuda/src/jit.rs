//! The compiler's options and logs, and the linker's calls.

use std::time::Instant;

use crate::context::{self, Context};
use crate::ffi::{Address, In};
use crate::transport::LoadError;
use crate::{Error, Result, image};

/// `CUjit_option`: those that give something back.
mod option {
    pub const WALL_TIME: u32 = 2;
    pub const INFO_LOG_BUFFER: u32 = 3;
    pub const INFO_LOG_BUFFER_SIZE_BYTES: u32 = 4;
    pub const ERROR_LOG_BUFFER: u32 = 5;
    pub const ERROR_LOG_BUFFER_SIZE_BYTES: u32 = 6;
    /// The first number that is no option.
    pub const COUNT: u32 = 34;
}

/// `CUjitInputType`.
pub mod input {
    pub const CUBIN: u32 = 0;
    pub const PTX: u32 = 1;
    pub const FATBINARY: u32 = 2;
    pub const OBJECT: u32 = 3;
    pub const LIBRARY: u32 = 4;
}

/// A buffer of the caller for a log.
#[derive(Clone, Copy, Default)]
struct LogBuffer {
    buffer: Option<Address>,
    /// Bytes of the buffer, in the array of options: there the bytes of the log are written.
    size: Option<(Address, usize)>,
}

impl LogBuffer {
    fn write(self, log: &str) {
        let Some((place, size)) = self.size else {
            return;
        };
        let written = match self.buffer.filter(|buffer| !buffer.is_null()) {
            Some(buffer) if size > 0 => {
                let length = log.len().min(size - 1);
                let buffer = buffer.bytes_mut(size);
                buffer[..length].copy_from_slice(&log.as_bytes()[..length]);
                buffer[length] = 0;
                length
            }
            _ => 0,
        };
        place.out::<usize>().set_if_wanted(written);
    }
}

/// The options of a compilation that a caller wants something back by.
#[derive(Clone, Copy, Default)]
pub struct Options {
    info: LogBuffer,
    error: LogBuffer,
    wall_time: Option<Address>,
}

impl Options {
    /// Reads the arrays of options and values. A value is a number in the place of a pointer, or a pointer.
    pub fn read(count: u32, options: In<u32>, values: In<u64>) -> Result<Self> {
        let mut read = Self::default();
        for index in 0..count as usize {
            let (option, value) = (options.get_at(index)?, values.get_at(index)?);
            let place = Address(values.address() + 8 * index as u64);
            // Sizes are `unsigned int` in the low half.
            let size = (place, value as u32 as usize);
            match option {
                option::INFO_LOG_BUFFER => read.info.buffer = Some(Address(value)),
                option::INFO_LOG_BUFFER_SIZE_BYTES => read.info.size = Some(size),
                option::ERROR_LOG_BUFFER => read.error.buffer = Some(Address(value)),
                option::ERROR_LOG_BUFFER_SIZE_BYTES => read.error.size = Some(size),
                option::WALL_TIME => read.wall_time = Some(place),
                option::COUNT.. => return Err(Error::INVALID_VALUE),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Compiles a text into a context and tells the caller how it went.
    pub fn load(self, context: &Context, ptx: &str) -> Result<u32> {
        let started = Instant::now();
        let loaded = context.channel.load(ptx);
        if let Some(place) = self.wall_time {
            let milliseconds = started.elapsed().as_secs_f32() * 1e3;
            place.out::<f32>().set_if_wanted(milliseconds);
        }
        self.info.write("");
        match loaded {
            Ok(module) => {
                self.error.write("");
                Ok(module)
            }
            Err(LoadError { error, log }) => {
                self.error.write(&log);
                Err(error)
            }
        }
    }
}

/// A linker's input so far.
///
/// Its output stands for machine code, and is PTX: one text with all inputs.
#[derive(Default)]
pub struct Link {
    options: Options,
    text: String,
    /// The output, from the end of linking on.
    output: Option<Vec<u8>>,
}

impl Link {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// # Errors
    /// `NO_BINARY_FOR_GPU` for machine code, `INVALID_VALUE` after the end or for another kind of input.
    pub fn add(&mut self, kind: u32, data: &[u8]) -> Result<()> {
        if self.output.is_some() {
            return Err(Error::INVALID_VALUE);
        }
        let ptx = match kind {
            // What an earlier link has put out comes as machine code.
            input::PTX | input::FATBINARY | input::CUBIN => image::ptx_of(data)?,
            input::OBJECT | input::LIBRARY => return Err(Error::NO_BINARY_FOR_GPU),
            _ => return Err(Error::INVALID_VALUE),
        };
        if self.text.is_empty() {
            self.text = ptx;
        } else {
            self.text.push('\n');
            self.text.push_str(without_header(&ptx));
        }
        Ok(())
    }

    /// Compiles the whole, so that mistakes are told now, and returns the image.
    pub fn complete(&mut self) -> Result<&[u8]> {
        if self.text.is_empty() {
            return Err(Error::INVALID_VALUE);
        }
        if self.output.is_none() {
            let context = context::current()?;
            let module = self.options.load(&context, &self.text)?;
            context.channel.unload(module)?;
            let mut output = std::mem::take(&mut self.text).into_bytes();
            output.push(0);
            self.output = Some(output);
        }
        self.output.as_deref().ok_or(Error::UNKNOWN)
    }
}

/// A text without the directives that a module has once, which come first in it.
fn without_header(ptx: &str) -> &str {
    const ONCE: [&str; 3] = [".version", ".target", ".address_size"];
    let mut rest = ptx;
    loop {
        let line = rest.split_inclusive('\n').next().unwrap_or("");
        let word = line.trim_start();
        let blank = word.is_empty() || word.starts_with("//");
        if line.is_empty() || !(blank || ONCE.iter().any(|once| word.starts_with(once))) {
            return rest;
        }
        rest = &rest[line.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_text_loses_its_header() {
        let ptx =
            "// by hand\n\n.version 7.5\n.target sm_75\n.address_size 64\n\n.func f() { ret; }\n";
        assert_eq!(without_header(ptx), ".func f() { ret; }\n");
        assert_eq!(without_header(".version 7.5"), "");
    }

    #[test]
    fn objects_and_machine_code_cannot_be_linked() {
        let mut link = Link::default();
        assert_eq!(
            link.add(input::CUBIN, b"\x7fELF\x02"),
            Err(Error::NO_BINARY_FOR_GPU)
        );
        assert_eq!(
            link.add(input::LIBRARY, b"!<arch>"),
            Err(Error::NO_BINARY_FOR_GPU)
        );
        assert_eq!(link.add(9, b""), Err(Error::INVALID_VALUE));
    }

    #[test]
    fn a_log_is_cut_to_its_buffer_and_its_length_is_told() {
        let mut buffer = [0xffu8; 8];
        let options = [5u32, 6];
        let values = [buffer.as_mut_ptr() as u64, 8];
        let read = Options::read(2, In::of(&options), In::of(&values)).unwrap();
        read.error.write("line 1: mistake");
        assert_eq!(&buffer, b"line 1:\0");
        assert_eq!(In::of(&values).get_at(1), Ok(7));
    }

    #[test]
    fn numbers_that_are_no_options_are_refused() {
        let (options, values) = ([99u32], [0u64]);
        assert!(Options::read(1, In::of(&options), In::of(&values)).is_err());
    }
}
