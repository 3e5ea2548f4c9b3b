//! Launches.

use std::sync::Arc;

use crate::context::Context;
use crate::ffi::{Address, In};
use crate::module::Function;
use crate::transport::Grid;
use crate::{Error, Result};

/// A kernel with its extent and the values of its parameters.
#[derive(Clone)]
pub struct Launch {
    function: Arc<Function>,
    grid: Grid,
    params: Vec<u8>,
}

/// Keys of the `extra` array.
mod extra {
    pub const END: u64 = 0;
    pub const BUFFER_POINTER: u64 = 1;
    pub const BUFFER_SIZE: u64 = 2;
}

impl Launch {
    /// Checks a launch and reads its parameters: an array with the address of each, or `extra` with all of them in a buffer.
    pub fn new(
        function: Arc<Function>,
        grid: Grid,
        params: In<Address>,
        extra: In<u64>,
    ) -> Result<Self> {
        function.check(&grid)?;
        let params = match (params.is_null(), extra.is_null()) {
            (false, true) => gather(&function, params)?,
            (true, false) => unpack(&function, extra)?,
            (true, true) if function.parameter_bytes() == 0 => Vec::new(),
            _ => return Err(Error::INVALID_VALUE),
        };
        Ok(Self {
            function,
            grid,
            params,
        })
    }

    /// The context of the kernel.
    pub fn context(&self) -> Result<Arc<Context>> {
        self.function.module.context()
    }

    /// As a channel takes it.
    pub fn request(&self) -> (u32, Grid, &[u8]) {
        (self.function.kernel.id, self.grid, &self.params)
    }

    /// Runs the kernel to its end.
    pub fn perform(&self) -> Result<()> {
        let mut outcome = Ok(());
        let channel = &self.context()?.channel;
        channel.launch(&[self.request()], |end| outcome = end)?;
        outcome
    }
}

/// Copies each parameter to its offset.
fn gather(function: &Function, params: In<Address>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; function.parameter_bytes()];
    for (index, &(offset, bytes)) in function.kernel.params.iter().enumerate() {
        let value = params.get_at(index)?;
        if value.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let place = &mut buffer[offset as usize..(offset + bytes) as usize];
        place.copy_from_slice(value.bytes(bytes as usize));
    }
    Ok(buffer)
}

fn unpack(function: &Function, extra: In<u64>) -> Result<Vec<u8>> {
    let (mut pointer, mut size) = (None, None);
    for index in (0..).step_by(2) {
        match extra.get_at(index)? {
            extra::END => break,
            extra::BUFFER_POINTER => pointer = Some(Address(extra.get_at(index + 1)?)),
            extra::BUFFER_SIZE => size = Some(Address(extra.get_at(index + 1)?)),
            _ => return Err(Error::INVALID_VALUE),
        }
    }
    let given = |address: Option<Address>| {
        let address = address.filter(|address| !address.is_null());
        address.ok_or(Error::INVALID_VALUE)
    };
    let (pointer, size) = (given(pointer), given(size));
    let needed = function.parameter_bytes();
    if needed == 0 {
        return Ok(Vec::new());
    }
    if size?.value::<usize>(0) < needed {
        return Err(Error::INVALID_VALUE);
    }
    Ok(pointer?.read(needed))
}
