//! CUDA's result codes (`CUresult`).

use std::ffi::CStr;
use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// A result code other than `CUDA_SUCCESS`.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} ({})", self.name().to_string_lossy(), self.0)]
pub struct Error(pub u32);

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name and description of a code.
struct Entry {
    code: u32,
    name: &'static CStr,
    text: &'static CStr,
}

impl Error {
    fn entry(code: u32) -> Option<&'static Entry> {
        ENTRIES.iter().find(|entry| entry.code == code)
    }

    /// The name of a code, as `CUDA_ERROR_INVALID_VALUE`; `None` for a number that is no code.
    pub fn name_of(code: u32) -> Option<&'static CStr> {
        Self::entry(code).map(|entry| entry.name)
    }

    /// What a code means.
    pub fn text_of(code: u32) -> Option<&'static CStr> {
        Self::entry(code).map(|entry| entry.text)
    }

    pub fn name(self) -> &'static CStr {
        Self::name_of(self.0).unwrap_or(c"CUDA_ERROR_UNKNOWN")
    }

    /// Whether it ends the context: every later call in it reports the same.
    pub fn is_sticky(self) -> bool {
        matches!(self.0, 700 | 702 | 710 | 714..=719)
    }
}

macro_rules! codes {
    ($($code:literal $constant:ident $text:literal)*) => {
        #[allow(dead_code, reason = "the list is CUDA's, and whole")]
        impl Error {
            $(pub const $constant: Self = Self($code);)*
        }

        const ENTRIES: &[Entry] = &[
            Entry { code: 0, name: c"CUDA_SUCCESS", text: c"no error" },
            $(Entry {
                code: $code,
                name: match CStr::from_bytes_with_nul(concat!("CUDA_ERROR_", stringify!($constant), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
                text: $text,
            },)*
        ];
    };
}

codes! {
    1 INVALID_VALUE c"an argument is out of range"
    2 OUT_OF_MEMORY c"not enough memory is left"
    3 NOT_INITIALIZED c"cuInit has not been called"
    4 DEINITIALIZED c"the driver is shutting down"
    5 PROFILER_DISABLED c"no profiler runs"
    6 PROFILER_NOT_INITIALIZED c"the profiler is not initialized"
    7 PROFILER_ALREADY_STARTED c"the profiler runs already"
    8 PROFILER_ALREADY_STOPPED c"the profiler has stopped already"
    34 STUB_LIBRARY c"the library is a stub"
    46 DEVICE_UNAVAILABLE c"the device is in use or not ready"
    100 NO_DEVICE c"there is no CUDA device"
    101 INVALID_DEVICE c"no device has this ordinal"
    102 DEVICE_NOT_LICENSED c"the device has no licence"
    200 INVALID_IMAGE c"the image is no module"
    201 INVALID_CONTEXT c"there is no valid current context"
    202 CONTEXT_ALREADY_CURRENT c"the context is current already"
    205 MAP_FAILED c"mapping failed"
    206 UNMAP_FAILED c"unmapping failed"
    207 ARRAY_IS_MAPPED c"the array is mapped"
    208 ALREADY_MAPPED c"the resource is mapped already"
    209 NO_BINARY_FOR_GPU c"the image holds no code for this device"
    210 ALREADY_ACQUIRED c"the resource is acquired already"
    211 NOT_MAPPED c"the resource is not mapped"
    212 NOT_MAPPED_AS_ARRAY c"the resource is not mapped as an array"
    213 NOT_MAPPED_AS_POINTER c"the resource is not mapped as a pointer"
    214 ECC_UNCORRECTABLE c"memory has an error that cannot be corrected"
    215 UNSUPPORTED_LIMIT c"the device has no such limit"
    216 CONTEXT_ALREADY_IN_USE c"another thread uses the context"
    217 PEER_ACCESS_UNSUPPORTED c"the devices cannot access each other"
    218 INVALID_PTX c"the PTX text cannot be compiled"
    219 INVALID_GRAPHICS_CONTEXT c"the graphics context is invalid"
    220 NVLINK_UNCORRECTABLE c"a link has an error that cannot be corrected"
    221 JIT_COMPILER_NOT_FOUND c"there is no PTX compiler"
    222 UNSUPPORTED_PTX_VERSION c"the PTX version is not supported"
    223 JIT_COMPILATION_DISABLED c"the PTX compiler is disabled"
    224 UNSUPPORTED_EXEC_AFFINITY c"the device has no such execution affinity"
    225 UNSUPPORTED_DEVSIDE_SYNC c"kernels cannot synchronize with the device"
    226 CONTAINED c"an error was contained"
    300 INVALID_SOURCE c"the source is invalid"
    301 FILE_NOT_FOUND c"the file cannot be read"
    302 SHARED_OBJECT_SYMBOL_NOT_FOUND c"a shared object lacks a symbol"
    303 SHARED_OBJECT_INIT_FAILED c"a shared object cannot be initialized"
    304 OPERATING_SYSTEM c"a system call has failed"
    400 INVALID_HANDLE c"the handle stands for nothing"
    401 ILLEGAL_STATE c"the object is in another state"
    402 LOSSY_QUERY c"the answer would leave something out"
    500 NOT_FOUND c"nothing has this name"
    600 NOT_READY c"the work has not ended yet"
    700 ILLEGAL_ADDRESS c"a kernel accessed memory that is not there"
    701 LAUNCH_OUT_OF_RESOURCES c"the launch needs more than the device has"
    702 LAUNCH_TIMEOUT c"a kernel took too long"
    703 LAUNCH_INCOMPATIBLE_TEXTURING c"the launch uses an incompatible texturing mode"
    704 PEER_ACCESS_ALREADY_ENABLED c"peer access is enabled already"
    705 PEER_ACCESS_NOT_ENABLED c"peer access is not enabled"
    708 PRIMARY_CONTEXT_ACTIVE c"the primary context is active already"
    709 CONTEXT_IS_DESTROYED c"the context is destroyed"
    710 ASSERT c"an assertion in a kernel failed"
    711 TOO_MANY_PEERS c"no further peer can be enabled"
    712 HOST_MEMORY_ALREADY_REGISTERED c"the memory is registered already"
    713 HOST_MEMORY_NOT_REGISTERED c"the memory is not registered"
    714 HARDWARE_STACK_ERROR c"a kernel's stack is damaged"
    715 ILLEGAL_INSTRUCTION c"a kernel executed an illegal instruction"
    716 MISALIGNED_ADDRESS c"a kernel accessed a misaligned address"
    717 INVALID_ADDRESS_SPACE c"an instruction does not work in this address space"
    718 INVALID_PC c"a kernel called what is no function"
    719 LAUNCH_FAILED c"a kernel failed"
    720 COOPERATIVE_LAUNCH_TOO_LARGE c"the cooperative launch has too many blocks"
    721 TENSOR_MEMORY_LEAK c"a kernel ended with tensor memory allocated"
    800 NOT_PERMITTED c"the operation is not permitted"
    801 NOT_SUPPORTED c"the operation is not supported"
    802 SYSTEM_NOT_READY c"the system is not ready"
    803 SYSTEM_DRIVER_MISMATCH c"the library does not fit the kernel's driver"
    804 COMPAT_NOT_SUPPORTED_ON_DEVICE c"the device does not support compatibility mode"
    805 MPS_CONNECTION_FAILED c"the MPS server cannot be reached"
    806 MPS_RPC_FAILURE c"a call of the MPS server failed"
    807 MPS_SERVER_NOT_READY c"the MPS server is not ready"
    808 MPS_MAX_CLIENTS_REACHED c"the MPS server has no room for another client"
    809 MPS_MAX_CONNECTIONS_REACHED c"the MPS server has no room for another connection"
    810 MPS_CLIENT_TERMINATED c"the MPS client was ended"
    811 CDP_NOT_SUPPORTED c"kernels cannot launch kernels"
    812 CDP_VERSION_MISMATCH c"versions of dynamic parallelism differ"
    900 STREAM_CAPTURE_UNSUPPORTED c"the operation cannot be captured"
    901 STREAM_CAPTURE_INVALIDATED c"the capture is invalid"
    902 STREAM_CAPTURE_MERGE c"the operation would merge two captures"
    903 STREAM_CAPTURE_UNMATCHED c"the capture did not begin in this stream"
    904 STREAM_CAPTURE_UNJOINED c"the capture has a fork that was not joined"
    905 STREAM_CAPTURE_ISOLATION c"the operation would depend on work outside the capture"
    906 STREAM_CAPTURE_IMPLICIT c"the operation would depend on the legacy stream"
    907 CAPTURED_EVENT c"the event was recorded in a capture"
    908 STREAM_CAPTURE_WRONG_THREAD c"another thread began the capture"
    909 TIMEOUT c"the time is over"
    910 GRAPH_EXEC_UPDATE_FAILURE c"the executable graph cannot be updated so"
    911 EXTERNAL_DEVICE c"another device has failed"
    912 INVALID_CLUSTER_SIZE c"the size of the cluster is invalid"
    913 FUNCTION_NOT_LOADED c"the function is not loaded"
    914 INVALID_RESOURCE_TYPE c"the resource has another type"
    915 INVALID_RESOURCE_CONFIGURATION c"the resource is configured otherwise"
    916 KEY_ROTATION c"keys are being changed"
    999 UNKNOWN c"an internal error"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_cudas_names() {
        assert_eq!(Error::name_of(0), Some(c"CUDA_SUCCESS"));
        assert_eq!(Error::ILLEGAL_ADDRESS.name(), c"CUDA_ERROR_ILLEGAL_ADDRESS");
        assert_eq!(
            Error::NOT_SUPPORTED.to_string(),
            "CUDA_ERROR_NOT_SUPPORTED (801)"
        );
        assert_eq!(Error::name_of(12345), None);
    }

    #[test]
    fn faults_of_kernels_are_sticky_and_refusals_are_not() {
        assert!(Error::ILLEGAL_ADDRESS.is_sticky());
        assert!(Error::LAUNCH_TIMEOUT.is_sticky());
        assert!(!Error::LAUNCH_OUT_OF_RESOURCES.is_sticky());
        assert!(!Error::INVALID_VALUE.is_sticky());
    }
}
