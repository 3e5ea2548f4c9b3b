//! The C edge: pointers that a caller passes, and the definition of a C function.
//!
//! CUDA's contract is that a pointer argument is null or points to what the function's declaration says. The types here
//! stand for such arguments; all that is read or written through them is here.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::settings::settings;
use crate::{Error, Result};

/// Where a result goes.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Errors
    /// `INVALID_VALUE` for a null pointer.
    pub fn set(self, value: T) -> Result<()> {
        self.set_at(0, value)
    }

    /// Writes an element of an array.
    pub fn set_at(self, index: usize, value: T) -> Result<()> {
        if self.0.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller passed a place for a result of this type (or an array that long), as CUDA's contract asks.
        unsafe { self.0.add(index).write_unaligned(value) };
        Ok(())
    }

    /// Writes a result that the caller may not want.
    pub fn set_if_wanted(self, value: T) {
        let _ = self.set(value);
    }
}

impl Out<c_char> {
    /// Writes a string and its end into `length` bytes, cut to fit.
    pub fn set_text(self, text: &str, length: usize) -> Result<()> {
        let room = length.checked_sub(1).ok_or(Error::INVALID_VALUE)?;
        let bytes = text.bytes().take(room).chain([0]);
        for (index, byte) in bytes.enumerate() {
            self.set_at(index, byte as c_char)?;
        }
        Ok(())
    }
}

/// A value, or the first of several, that the caller passes by its address.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address itself.
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// # Errors
    /// `INVALID_VALUE` for a null pointer.
    pub fn get(self) -> Result<T> {
        self.get_at(0)
    }

    /// Reads an element of an array.
    pub fn get_at(self, index: usize) -> Result<T> {
        if self.0.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller passed a value of this type (or an array that long), as CUDA's contract asks.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// Reads an array, which may be null when it is empty.
    pub fn array(self, length: usize) -> Result<Vec<T>> {
        (0..length).map(|index| self.get_at(index)).collect()
    }
}

impl<T> In<T> {
    /// What the caller is shown; it stays where it is as long as that.
    pub fn of(values: &[T]) -> Self {
        Self(values.as_ptr())
    }
}

/// A string of the caller.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// # Errors
    /// `INVALID_VALUE` for a null pointer, or a text that is no UTF-8.
    pub fn get(self) -> Result<String> {
        if self.0.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller passed a string with its end, as CUDA's contract asks.
        let text = unsafe { CStr::from_ptr(self.0) };
        let text = text.to_str().map_err(|_| Error::INVALID_VALUE)?;
        Ok(text.to_owned())
    }
}

/// A constant string that goes to the caller.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct StaticText(#[allow(dead_code, reason = "C reads it")] *const c_char);

impl From<&'static CStr> for StaticText {
    fn from(text: &'static CStr) -> Self {
        Self(text.as_ptr())
    }
}

impl StaticText {
    pub const NULL: Self = Self(std::ptr::null());
}

/// An address in the caller's memory whose extent another argument tells, or its content.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// Copies from the caller's memory.
    pub fn read(self, bytes: usize) -> Vec<u8> {
        self.bytes(bytes).to_vec()
    }

    /// The caller's memory; the caller promises to leave it alone while it is used.
    pub fn bytes<'a>(self, length: usize) -> &'a [u8] {
        if length == 0 {
            return &[];
        }
        // SAFETY: the caller passed memory of at least this length, as CUDA's contract asks.
        unsafe { std::slice::from_raw_parts(self.0 as *const u8, length) }
    }

    /// The caller's memory, to be overwritten.
    pub fn bytes_mut<'a>(self, length: usize) -> &'a mut [u8] {
        if length == 0 {
            return &mut [];
        }
        // SAFETY: the caller passed memory of at least this length for the function to fill, as CUDA's contract asks.
        unsafe { std::slice::from_raw_parts_mut(self.0 as *mut u8, length) }
    }

    /// Moves bytes within the caller's memory.
    pub fn copy_from(self, from: Address, bytes: usize) {
        // SAFETY: the caller passed two ranges of at least this length, as CUDA's contract asks; they may overlap.
        unsafe { std::ptr::copy(from.0 as *const u8, self.0 as *mut u8, bytes) };
    }

    /// A value at this address.
    pub fn value<T: Copy>(self, offset: u64) -> T {
        // SAFETY: the caller passed a structure that begins with at least this much, as CUDA's contract asks.
        unsafe { ((self.0 + offset) as *const T).read_unaligned() }
    }

    /// Where a value of type `T` goes.
    pub fn out<T>(self) -> Out<T> {
        Out(self.0 as *mut T)
    }

    /// The text at this address up to its end.
    pub fn text(self) -> Vec<u8> {
        // SAFETY: the caller passed a text with its end, as CUDA's contract asks.
        unsafe { CStr::from_ptr(self.0 as *const c_char) }
            .to_bytes()
            .to_vec()
    }
}

/// A function of the caller that takes one pointer (`CUhostFn`).
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct HostFunction(Option<unsafe extern "C" fn(*mut c_void)>);

impl HostFunction {
    /// # Errors
    /// `INVALID_VALUE` for a null pointer.
    pub fn check(self) -> Result<()> {
        self.0.map(|_| ()).ok_or(Error::INVALID_VALUE)
    }

    pub fn call(self, data: Address) {
        if let Some(function) = self.0 {
            // SAFETY: the caller passed this function to be called with this argument from any thread.
            unsafe { function(data.0 as *mut c_void) };
        }
    }
}

/// A function of the caller that hears of a stream's end of work (`CUstreamCallback`).
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct StreamCallback(Option<unsafe extern "C" fn(crate::registry::Handle, u32, *mut c_void)>);

impl StreamCallback {
    /// # Errors
    /// `INVALID_VALUE` for a null pointer.
    pub fn check(self) -> Result<()> {
        self.0.map(|_| ()).ok_or(Error::INVALID_VALUE)
    }

    pub fn call(self, stream: crate::registry::Handle, status: u32, data: Address) {
        if let Some(function) = self.0 {
            // SAFETY: the caller passed this function to be called with these arguments from any thread.
            unsafe { function(stream, status, data.0 as *mut c_void) };
        }
    }
}

/// A function of the caller that tells the dynamic shared memory of a block size (`CUoccupancyB2DSize`).
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct SharedOfBlock(Option<unsafe extern "C" fn(i32) -> usize>);

impl SharedOfBlock {
    /// The bytes for a block of `threads`; `otherwise` when there is no function.
    pub fn bytes(self, threads: u32, otherwise: usize) -> usize {
        match self.0 {
            // SAFETY: the caller passed this function to be called with a block size.
            Some(function) => unsafe { function(threads as i32) },
            None => otherwise,
        }
    }
}

macro_rules! show_as_pointer {
    ($($ty:ident $(<$generic:ident>)?),*) => {$(
        impl$(<$generic>)? fmt::Debug for $ty$(<$generic>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )*};
}
show_as_pointer!(Out<T>, In<T>, HostFunction, StreamCallback, SharedOfBlock);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Ok(text) => write!(f, "{text:?}"),
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

/// A C function that programs can ask for by name.
pub struct Entry {
    pub name: &'static str,
    /// The first version of CUDA, as 12020 for 12.2, in whose header it is what the plain name means.
    pub since: i32,
    pub address: *const c_void,
}

// SAFETY: the address is a function's, and never changes.
unsafe impl Sync for Entry {}

/// Runs the body of a C function: no panic leaves it, and the call is written to stderr if that is wanted.
pub fn call(
    name: &str,
    arguments: impl FnOnce() -> String,
    body: impl FnOnce() -> Result<()>,
) -> u32 {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Error::UNKNOWN));
    if settings().debug {
        let outcome = match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        // SAFETY: gettid takes and changes nothing.
        let thread = unsafe { libc::gettid() };
        eprintln!("cuda[{thread}] {name}({}) = {outcome}", arguments());
    }
    result.map_or_else(|Error(code)| code, |()| 0)
}

/// Defines C functions and lists them in `ENTRIES`.
///
/// A number says in which version of CUDA the name came to mean this function; further names behind the arguments are the
/// same function for C. The body is a `Result<()>`.
macro_rules! driver_api {
    ($(
        $(#[$attribute:meta])*
        $since:literal fn $name:ident $arguments:tt $(| $alias_since:literal $alias:ident)* $body:block
    )*) => {
        $($crate::ffi::driver_api!(@function [$(#[$attribute])*] $name $arguments $body);)*
        $($($crate::ffi::driver_api!(@function [] $alias $arguments $body);)*)*

        pub const ENTRIES: &[$crate::ffi::Entry] = &[
            $(
                $crate::ffi::Entry { name: stringify!($name), since: $since, address: $name as *const _ },
                $($crate::ffi::Entry { name: stringify!($alias), since: $alias_since, address: $alias as *const _ },)*
            )*
        ];
    };
    (@function [$($attribute:tt)*] $name:ident ($($argument:ident: $ty:ty),* $(,)?) $body:block) => {
        $($attribute)*
        #[allow(unsafe_code, non_snake_case)]
        // SAFETY: nothing else in a program has one of CUDA's names.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $ty),*) -> u32 {
            $crate::ffi::call(
                stringify!($name),
                || {
                    let arguments: &[(&str, &dyn std::fmt::Debug)] = &[$((stringify!($argument), &$argument)),*];
                    let shown: Vec<String> = arguments.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
                    shown.join(", ")
                },
                || $body,
            )
        }
    };
}
pub(crate) use driver_api;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_pointers_are_invalid_values() {
        let out: Out<i32> = Address(0).out();
        assert_eq!(out.set(1), Err(Error::INVALID_VALUE));
        assert_eq!(Text(std::ptr::null()).get(), Err(Error::INVALID_VALUE));
        assert_eq!(In::<u32>(std::ptr::null()).get(), Err(Error::INVALID_VALUE));
    }

    #[test]
    fn a_text_is_cut_to_its_room() {
        let mut room = [1 as c_char; 4];
        Out(room.as_mut_ptr()).set_text("tesla", 4).unwrap();
        assert_eq!(room, [b't', b'e', b's', 0].map(|byte| byte as c_char));
        assert!(Out(room.as_mut_ptr()).set_text("tesla", 0).is_err());
    }

    #[test]
    fn a_panic_is_an_unknown_error() {
        let code = call("test", String::new, || panic!("on purpose"));
        assert_eq!(code, Error::UNKNOWN.0);
    }
}
