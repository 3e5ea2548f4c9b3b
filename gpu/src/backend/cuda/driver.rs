//! The host's driver library: the functions that are used, found by name in a file that the user has named.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr;

use libloading::Library;

use crate::Error;
use crate::protocol::spec::result;

/// `CUresult`.
type Status = c_int;
/// `CUdeviceptr`.
pub type DevicePointer = u64;
/// `CUcontext`, `CUmodule`, `CUfunction` and `CUstream` point to what only the driver knows.
pub type Opaque = *mut c_void;

/// Makes a structure of function pointers, and fills it from a library.
macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> Status,)*
        }

        impl Functions {
            fn load(library: &Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: this is the driver's documented signature of that name.
                    $($field: unsafe { *library.get($symbol)? },)*
                })
            }
        }
    };
}

functions! {
    init = b"cuInit\0" (c_uint);
    driver_version = b"cuDriverGetVersion\0" (*mut c_int);
    device_count = b"cuDeviceGetCount\0" (*mut c_int);
    device_get = b"cuDeviceGet\0" (*mut c_int, c_int);
    device_name = b"cuDeviceGetName\0" (*mut c_char, c_int, c_int);
    device_attribute = b"cuDeviceGetAttribute\0" (*mut c_int, c_int, c_int);
    context_create = b"cuCtxCreate_v2\0" (*mut Opaque, c_uint, c_int);
    context_destroy = b"cuCtxDestroy_v2\0" (Opaque);
    context_set = b"cuCtxSetCurrent\0" (Opaque);
    context_synchronize = b"cuCtxSynchronize\0" ();
    memory_info = b"cuMemGetInfo_v2\0" (*mut usize, *mut usize);
    memory_alloc = b"cuMemAlloc_v2\0" (*mut DevicePointer, usize);
    memory_free = b"cuMemFree_v2\0" (DevicePointer);
    copy_to_device = b"cuMemcpyHtoD_v2\0" (DevicePointer, *const c_void, usize);
    copy_from_device = b"cuMemcpyDtoH_v2\0" (*mut c_void, DevicePointer, usize);
    copy_in_device = b"cuMemcpyDtoD_v2\0" (DevicePointer, DevicePointer, usize);
    set_8 = b"cuMemsetD8_v2\0" (DevicePointer, u8, usize);
    set_16 = b"cuMemsetD16_v2\0" (DevicePointer, u16, usize);
    set_32 = b"cuMemsetD32_v2\0" (DevicePointer, c_uint, usize);
    register = b"cuMemHostRegister_v2\0" (*mut c_void, usize, c_uint);
    unregister = b"cuMemHostUnregister\0" (*mut c_void);
    module_load = b"cuModuleLoadDataEx\0"
        (*mut Opaque, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
    module_unload = b"cuModuleUnload\0" (Opaque);
    module_function = b"cuModuleGetFunction\0" (*mut Opaque, Opaque, *const c_char);
    module_global = b"cuModuleGetGlobal_v2\0" (*mut DevicePointer, *mut usize, Opaque, *const c_char);
    function_attribute = b"cuFuncGetAttribute\0" (*mut c_int, c_int, Opaque);
    launch = b"cuLaunchKernel\0" (
        Opaque, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Opaque, *mut *mut c_void,
        *mut *mut c_void
    );
    stream_create = b"cuStreamCreate\0" (*mut Opaque, c_uint);
    stream_destroy = b"cuStreamDestroy_v2\0" (Opaque);
    stream_query = b"cuStreamQuery\0" (Opaque);
}

/// Attributes of devices and functions (`CUdevice_attribute`, `CUfunction_attribute`).
pub mod attribute {
    pub const MAX_THREADS_PER_BLOCK: i32 = 1;
    pub const MULTIPROCESSORS: i32 = 16;
    pub const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
    pub const COMPUTE_CAPABILITY_MINOR: i32 = 76;
    pub const FUNCTION_MAX_THREADS: i32 = 0;
    pub const FUNCTION_SHARED: i32 = 1;
    pub const FUNCTION_CONST: i32 = 2;
    pub const FUNCTION_LOCAL: i32 = 3;
    pub const FUNCTION_REGISTERS: i32 = 4;
}

/// `CU_JIT_ERROR_LOG_BUFFER` and its size (`CUjit_option`).
const JIT_ERROR_LOG: [c_int; 2] = [5, 6];
const LOG_SIZE: usize = 16 << 10;
/// `CU_STREAM_NON_BLOCKING`: kernels of different streams do not wait for each other or for copies.
const NON_BLOCKING: c_uint = 1;
/// `CU_MEMHOSTREGISTER_PORTABLE` and `_DEVICEMAP`.
const REGISTER_FLAGS: c_uint = 1 | 2;

/// The library. It stays loaded until the process ends: drivers have threads.
pub struct Driver(Functions);

fn check(call: &'static str, status: Status) -> Result<(), Error> {
    match u32::try_from(status).unwrap_or(result::UNKNOWN) {
        result::SUCCESS => Ok(()),
        code => Err(Error::Driver { call, code }),
    }
}

/// Calls a function of the driver's and names it in the error.
macro_rules! call {
    ($driver:expr, $field:ident($($argument:expr),*)) => {
        // SAFETY: every pointer argument is valid for the call, and sized as the driver's documentation says.
        check(stringify!($field), unsafe { ($driver.0.$field)($($argument),*) })
    };
}

impl Driver {
    /// Loads the library in a file and initialises it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |error: libloading::Error| Error::NoDriver {
            path: path.to_path_buf(),
            // What the loader says, which names the file or the function.
            why: std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string),
        };
        if !path.is_absolute() {
            return Err(Error::NoDriver {
                path: path.to_path_buf(),
                why: "the path is not absolute".into(),
            });
        }
        // SAFETY: the user who starts the machine has chosen the library, whose constructors run now.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        let driver = Self(Functions::load(&library).map_err(failed)?);
        std::mem::forget(library);
        call!(driver, init(0))?;
        Ok(driver)
    }

    fn number(
        &self,
        get: impl FnOnce(&Self, *mut c_int) -> Result<(), Error>,
    ) -> Result<i32, Error> {
        let mut value = 0;
        get(self, &mut value)?;
        Ok(value)
    }

    pub fn version(&self) -> Result<i32, Error> {
        self.number(|driver, to| call!(driver, driver_version(to)))
    }

    pub fn devices(&self) -> Result<i32, Error> {
        self.number(|driver, to| call!(driver, device_count(to)))
    }

    pub fn device(&self, ordinal: i32) -> Result<i32, Error> {
        self.number(|driver, to| call!(driver, device_get(to, ordinal)))
    }

    pub fn device_attribute(&self, device: i32, attribute: i32) -> Result<i32, Error> {
        self.number(|driver, to| call!(driver, device_attribute(to, attribute, device)))
    }

    pub fn device_name(&self, device: i32) -> Result<String, Error> {
        let mut name = [0 as c_char; 256];
        call!(
            self,
            device_name(name.as_mut_ptr(), name.len() as c_int - 1, device)
        )?;
        // SAFETY: the last byte is 0, as the driver was told of one less.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        Ok(name.to_string_lossy().into_owned())
    }

    pub fn context_create(&self, device: i32) -> Result<Opaque, Error> {
        let mut context = ptr::null_mut();
        call!(self, context_create(&mut context, 0, device))?;
        Ok(context)
    }

    pub fn context_destroy(&self, context: Opaque) -> Result<(), Error> {
        call!(self, context_destroy(context))
    }

    /// Makes a context the calling thread's.
    pub fn context_set(&self, context: Opaque) -> Result<(), Error> {
        call!(self, context_set(context))
    }

    pub fn synchronize(&self) -> Result<(), Error> {
        call!(self, context_synchronize())
    }

    /// Bytes free, and all.
    pub fn memory_info(&self) -> Result<(u64, u64), Error> {
        let (mut free, mut total) = (0, 0);
        call!(self, memory_info(&mut free, &mut total))?;
        Ok((free as u64, total as u64))
    }

    pub fn alloc(&self, bytes: u64) -> Result<DevicePointer, Error> {
        let mut address = 0;
        let size = usize::try_from(bytes).map_err(|_| Error::OutOfMemory(bytes))?;
        call!(self, memory_alloc(&mut address, size))?;
        Ok(address)
    }

    pub fn free(&self, address: DevicePointer) -> Result<(), Error> {
        call!(self, memory_free(address))
    }

    /// Copies to the device from memory that others may write meanwhile.
    ///
    /// # Safety
    /// `from` is valid for reads of so many bytes.
    pub unsafe fn copy_to(
        &self,
        to: DevicePointer,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), Error> {
        call!(self, copy_to_device(to, from.cast(), bytes))
    }

    /// Copies from the device.
    ///
    /// # Safety
    /// `to` is valid for writes of so many bytes.
    pub unsafe fn copy_from(
        &self,
        to: *mut u8,
        from: DevicePointer,
        bytes: usize,
    ) -> Result<(), Error> {
        call!(self, copy_from_device(to.cast(), from, bytes))
    }

    pub fn copy(&self, to: DevicePointer, from: DevicePointer, bytes: usize) -> Result<(), Error> {
        call!(self, copy_in_device(to, from, bytes))
    }

    /// Repeats a pattern of 1, 2 or 4 bytes.
    pub fn set(&self, address: DevicePointer, pattern: &[u8], count: usize) -> Result<(), Error> {
        match *pattern {
            [byte] => call!(self, set_8(address, byte, count)),
            [a, b] => call!(self, set_16(address, u16::from_le_bytes([a, b]), count)),
            [a, b, c, d] => call!(
                self,
                set_32(address, u32::from_le_bytes([a, b, c, d]), count)
            ),
            _ => Err(Error::InvalidValue("a pattern has 1, 2 or 4 bytes")),
        }
    }

    /// Lets the device reach host memory at the host's own address.
    ///
    /// # Safety
    /// The memory stays mapped until [`Self::unregister`].
    pub unsafe fn register(&self, address: u64, bytes: u64) -> Result<(), Error> {
        call!(
            self,
            register(address as *mut c_void, bytes as usize, REGISTER_FLAGS)
        )
    }

    pub fn unregister(&self, address: u64) -> Result<(), Error> {
        call!(self, unregister(address as *mut c_void))
    }

    /// Compiles and loads a text.
    pub fn module_load(&self, text: &CStr) -> Result<Opaque, Error> {
        let mut module = ptr::null_mut();
        let mut log = vec![0u8; LOG_SIZE];
        let mut options = JIT_ERROR_LOG;
        let mut values = [log.as_mut_ptr().cast(), LOG_SIZE as *mut c_void];
        let loaded = call!(
            self,
            module_load(
                &mut module,
                text.as_ptr().cast(),
                options.len() as c_uint,
                options.as_mut_ptr(),
                values.as_mut_ptr()
            )
        );
        match loaded {
            Ok(()) => Ok(module),
            Err(error) => Err(Error::Rejected {
                code: error.code(),
                log: log
                    .split(|&byte| byte == 0)
                    .next()
                    .map_or_else(String::new, |log| String::from_utf8_lossy(log).into_owned()),
            }),
        }
    }

    pub fn module_unload(&self, module: Opaque) -> Result<(), Error> {
        call!(self, module_unload(module))
    }

    pub fn function(&self, module: Opaque, name: &CStr) -> Result<Opaque, Error> {
        let mut function = ptr::null_mut();
        call!(self, module_function(&mut function, module, name.as_ptr()))?;
        Ok(function)
    }

    /// Address and bytes of a variable.
    pub fn global(&self, module: Opaque, name: &CStr) -> Result<(u64, u64), Error> {
        let (mut address, mut bytes) = (0, 0);
        call!(
            self,
            module_global(&mut address, &mut bytes, module, name.as_ptr())
        )?;
        Ok((address, bytes as u64))
    }

    pub fn function_attribute(&self, function: Opaque, attribute: i32) -> Result<i32, Error> {
        self.number(|driver, to| call!(driver, function_attribute(to, attribute, function)))
    }

    pub fn stream(&self) -> Result<Opaque, Error> {
        let mut stream = ptr::null_mut();
        call!(self, stream_create(&mut stream, NON_BLOCKING))?;
        Ok(stream)
    }

    pub fn stream_destroy(&self, stream: Opaque) -> Result<(), Error> {
        call!(self, stream_destroy(stream))
    }

    /// Whether everything of a stream is done.
    pub fn is_done(&self, stream: Opaque) -> Result<bool, Error> {
        match call!(self, stream_query(stream)) {
            Ok(()) => Ok(true),
            Err(Error::Driver {
                code: result::NOT_READY,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins a launch, with the parameters at these offsets of a buffer.
    pub fn launch(
        &self,
        function: Opaque,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        stream: Opaque,
        params: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        let mut pointers: Vec<*mut c_void> = params
            .iter_mut()
            .map(|param| param.as_mut_ptr().cast())
            .collect();
        let [grid_x, grid_y, grid_z] = grid;
        let [block_x, block_y, block_z] = block;
        call!(
            self,
            launch(
                function,
                grid_x,
                grid_y,
                grid_z,
                block_x,
                block_y,
                block_z,
                shared,
                stream,
                pointers.as_mut_ptr(),
                ptr::null_mut()
            )
        )
    }
}
