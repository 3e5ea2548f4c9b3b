//! The control socket: HTTP/1.1 with JSON over a Unix socket, as `curl --unix-socket` and `memu-ctl` speak it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/state` | [`State`] |
//! | `GET /v1/tree` | [`Tree`]: the PCI and CXL tree with committed decoders |
//! | `GET /v1/memslots` | array of [`Memslot`] |
//! | `GET /v1/exits` | [`Exits`] |
//! | `GET /v1/timing` | [`Timing`]; 409 where timing is off |
//! | `GET /v1/gpu` | array of [`Gpu`]: the accelerators with their clients |
//! | `GET /v1/gpu/trace?device=NAME&from=N&most=N` | JSON lines: a [`GpuTrace`], then at most `most` steps of the coherence protocol, those with numbers from `from` on; 0 and [`MOST_STEPS`] where they are not given. 409 where accesses are not known |
//! | `GET /v1/media?device=NAME&dpa=N&length=N` | [`Media`]: a device's bytes by DPA, at most [`MOST_MEDIA`] |
//! | `PUT /v1/pause` | 204 when the processors stand still |
//! | `PUT /v1/resume` | 204 |
//! | `PUT /v1/power-button` | 204 when it is pressed |
//! | `PUT /v1/add` with [`AddDevice`] | 204 when the device is in its slot and the guest has been told |
//! | `PUT /v1/remove?device=NAME` | 204 when the guest has switched its slot off and it is out; with `&surprise=true` at once |
//! | `PUT /v1/inject` with [`Inject`] | 204 when it has happened |
//! | `PUT /v1/extents` with [`ChangeExtents`] | 204 when the guest has been told |
//! | `PUT /v1/quit` | 204, then the machine ends |
//!
//! Any other path is answered by 404, another method by 405 with `Allow`, parameters that are no numbers or a request
//! that is no HTTP by 400, and what the machine refuses by 404, 409 or 500; all of them with a [`Failure`] as the body.
//! Bodies have up to 64 KiB; where none is expected it is skipped. Connections are kept alive until they have been idle for a minute.

mod api;
mod client;
mod http;
mod routes;
mod server;

#[cfg(test)]
mod tests;

pub use api::{
    AddDevice, ChangeExtents, Decoder, Device, DynamicRegion, EventSeverity, Exits, Extent,
    ExtentChange, Failure, FailureKind, Function, Gpu, GpuKernel, GpuQueue, GpuSession, GpuTrace,
    HostBridge, Inject, Injection, Media, Memslot, Port, Region, Removal, RunState, Slot, State,
    Switch, TimedDevice, Timing, Tree, Type2, Type3, Window,
};
pub use client::{Answer, Client, ClientError};
pub use routes::{Backend, MOST_MEDIA, MOST_STEPS};
pub use server::Server;
