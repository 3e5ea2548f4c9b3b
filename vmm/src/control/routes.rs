//! From a request to the machine and back.

use cxl::coherence::Event;
use serde::Serialize;

use super::api::{
    AddDevice, ChangeExtents, Exits, Failure, FailureKind, Gpu, GpuTrace, Inject, Media, Memslot,
    Removal, State, Timing, Tree,
};
use super::http::{Request, Response, Status};

/// Most bytes that one request for media returns.
pub const MOST_MEDIA: u64 = 1 << 20;

/// Most steps of the coherence protocol that one request returns.
pub const MOST_STEPS: u64 = 10_000;

/// The machine behind the socket. Called from several threads at once.
pub trait Backend: Send + Sync {
    /// The machine as a whole.
    ///
    /// # Errors
    /// A [`Failure`] is passed on to the client; this holds for every method.
    fn state(&self) -> Result<State, Failure>;
    /// Everything on the buses.
    ///
    /// # Errors
    /// See [`Backend::state`].
    fn tree(&self) -> Result<Tree, Failure>;
    /// KVM's memory slots by ascending address.
    ///
    /// # Errors
    /// See [`Backend::state`].
    fn memslots(&self) -> Result<Vec<Memslot>, Failure>;
    /// How often the guest was left.
    ///
    /// # Errors
    /// See [`Backend::state`].
    fn exits(&self) -> Result<Exits, Failure>;
    /// What the guest is made to feel of its CXL memory.
    ///
    /// # Errors
    /// [`FailureKind::Conflict`] if that is nothing, because the configuration does not ask for it.
    fn timing(&self) -> Result<Timing, Failure>;
    /// The accelerators, and what they do.
    ///
    /// # Errors
    /// See [`Backend::state`].
    fn gpu(&self) -> Result<Vec<Gpu>, Failure>;
    /// At most `most` steps of the coherence protocol of an accelerator, from a number on; `most` is at most [`MOST_STEPS`].
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if there is no such accelerator, [`FailureKind::Conflict`] if accesses to its memory are
    /// not known.
    fn gpu_trace(
        &self,
        device: &str,
        from: u64,
        most: u64,
    ) -> Result<(GpuTrace, Vec<Event>), Failure>;
    /// `length` bytes of a device from `dpa` on; `length` is at most [`MOST_MEDIA`].
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if there is no such device, [`FailureKind::BadRequest`] if it has no such bytes.
    fn media(&self, device: &str, dpa: u64, length: u64) -> Result<Vec<u8>, Failure>;
    /// Stops the processors, and returns when they stand still.
    ///
    /// # Errors
    /// See [`Backend::state`].
    fn pause(&self) -> Result<(), Failure>;
    /// Lets them go on.
    ///
    /// # Errors
    /// See [`Backend::state`].
    fn resume(&self) -> Result<(), Failure>;
    /// Presses the power button once.
    ///
    /// # Errors
    /// See [`Backend::state`].
    fn power_button(&self) -> Result<(), Failure>;
    /// Puts a device into the slot of a port.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if there is no such port, [`FailureKind::Conflict`] if it has no slot or the slot is not
    /// empty, [`FailureKind::BadRequest`] if the device cannot be like that.
    fn add_device(&self, request: AddDevice) -> Result<(), Failure>;
    /// Takes a device out of its slot.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if there is no such device, [`FailureKind::Conflict`] if it has no slot, or the guest has
    /// not let it go in time.
    fn remove_device(&self, device: &str, removal: Removal) -> Result<(), Failure>;
    /// Lets something go wrong, or puts it right again.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if there is no such component, [`FailureKind::BadRequest`] if that cannot happen to it.
    fn inject(&self, request: &Inject) -> Result<(), Failure>;
    /// Gives memory to a device with dynamic capacity, or takes some away.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] if there is no such device, [`FailureKind::BadRequest`] if it cannot have these extents,
    /// [`FailureKind::Conflict`] if the guest does not have, or has already, what is to change.
    fn change_extents(&self, request: &ChangeExtents) -> Result<(), Failure>;
    /// Begins the end of the machine and returns at once: the [`Server`](super::Server) waits for its clients' threads
    /// when it is dropped.
    fn quit(&self);
}

/// What happens after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request.
    Serve,
    /// [`Backend::quit`].
    Quit,
}

/// What a request says besides its path.
struct Asked<'r> {
    query: &'r str,
    body: &'r [u8],
}

impl Asked<'_> {
    /// The value of `key` in the query, if it is there.
    fn optional(&self, key: &str) -> Option<&str> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// As [`optional`](Self::optional), of a key that has to be there; `mend` says how to write the request.
    fn value(&self, key: &str, mend: &str) -> Result<&str, Failure> {
        self.optional(key)
            .ok_or_else(|| Failure::new(FailureKind::BadRequest, format!("{key} is missing"), mend))
    }
}

/// A path and the method that it takes.
struct Route {
    method: &'static str,
    path: &'static str,
    run: fn(&dyn Backend, &Asked) -> Result<Option<String>, Failure>,
}

const QUIT: &str = "/v1/quit";

/// The paths; the run functions return a body.
const ROUTES: [Route; 16] = [
    Route {
        method: "GET",
        path: "/v1/state",
        run: |machine, _| json(&machine.state()?),
    },
    Route {
        method: "GET",
        path: "/v1/tree",
        run: |machine, _| json(&machine.tree()?),
    },
    Route {
        method: "GET",
        path: "/v1/memslots",
        run: |machine, _| json(&machine.memslots()?),
    },
    Route {
        method: "GET",
        path: "/v1/exits",
        run: |machine, _| json(&machine.exits()?),
    },
    Route {
        method: "GET",
        path: "/v1/timing",
        run: |machine, _| json(&machine.timing()?),
    },
    Route {
        method: "GET",
        path: "/v1/gpu",
        run: |machine, _| json(&machine.gpu()?),
    },
    Route {
        method: "GET",
        path: "/v1/gpu/trace",
        run: gpu_trace,
    },
    Route {
        method: "GET",
        path: "/v1/media",
        run: media,
    },
    Route {
        method: "PUT",
        path: "/v1/pause",
        run: |machine, _| machine.pause().map(|()| None),
    },
    Route {
        method: "PUT",
        path: "/v1/resume",
        run: |machine, _| machine.resume().map(|()| None),
    },
    Route {
        method: "PUT",
        path: "/v1/power-button",
        run: |machine, _| machine.power_button().map(|()| None),
    },
    Route {
        method: "PUT",
        path: "/v1/add",
        run: add,
    },
    Route {
        method: "PUT",
        path: "/v1/remove",
        run: remove,
    },
    Route {
        method: "PUT",
        path: "/v1/inject",
        run: inject,
    },
    Route {
        method: "PUT",
        path: "/v1/extents",
        run: change_extents,
    },
    // The machine ends behind the answer, or the client would never see it.
    Route {
        method: "PUT",
        path: QUIT,
        run: |_, _| Ok(None),
    },
];

/// Answers a request.
pub(super) fn answer(machine: &dyn Backend, request: &Request) -> (Response, Next) {
    let target = request.target.as_str();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
        let paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        let message = format!("there is no {path}");
        let mend = format!("the paths are {}", paths.join(", "));
        return (failure(Status::NOT_FOUND, message, mend), Next::Serve);
    };
    if route.method != request.method {
        let message = format!("{path} does not take {}", request.method);
        let mend = format!("use {}", route.method);
        let mut response = failure(Status::METHOD_NOT_ALLOWED, message, mend);
        response.allow = Some(route.method);
        return (response, Next::Serve);
    }
    let next = if path == QUIT {
        Next::Quit
    } else {
        Next::Serve
    };
    let asked = Asked {
        query,
        body: &request.body,
    };
    let response = match (route.run)(machine, &asked) {
        Ok(Some(body)) => Response {
            status: Status::OK,
            body,
            allow: None,
        },
        Ok(None) => Response {
            status: Status::NO_CONTENT,
            body: String::new(),
            allow: None,
        },
        Err(error) => {
            let status = match error.kind {
                FailureKind::BadRequest => Status::BAD_REQUEST,
                FailureKind::NotFound => Status::NOT_FOUND,
                FailureKind::Conflict => Status::CONFLICT,
                FailureKind::Internal => Status::INTERNAL,
            };
            failure(status, error.message, error.mend)
        }
    };
    (response, next)
}

/// An answer that says what is wrong.
pub(super) fn failure(
    status: Status,
    message: impl Into<String>,
    mend: impl Into<String>,
) -> Response {
    let failure = Failure::new(FailureKind::default(), message, mend);
    Response {
        status,
        body: serde_json::to_string(&failure).unwrap_or_default() + "\n",
        allow: None,
    }
}

fn json<T: Serialize>(value: &T) -> Result<Option<String>, Failure> {
    match serde_json::to_string(value) {
        Ok(text) => Ok(Some(text + "\n")),
        Err(error) => Err(Failure::new(
            FailureKind::Internal,
            format!("the answer cannot be written as JSON: {error}"),
            "report this",
        )),
    }
}

fn add(machine: &dyn Backend, asked: &Asked) -> Result<Option<String>, Failure> {
    let request: AddDevice = serde_json::from_slice(asked.body).map_err(|error| {
        Failure::new(
            FailureKind::BadRequest,
            format!("the body does not name a port and a device: {error}"),
            r#"send JSON like {"port": "rp1", "device": {"type": "type3", "name": "mem1", ...}}"#,
        )
    })?;
    machine.add_device(request).map(|()| None)
}

fn remove(machine: &dyn Backend, asked: &Asked) -> Result<Option<String>, Failure> {
    let mend = "write /v1/remove?device=NAME or /v1/remove?device=NAME&surprise=true";
    let removal = match asked.optional("surprise") {
        None | Some("false") => Removal::Orderly,
        Some("true") => Removal::Surprise,
        Some(other) => {
            let message = format!("surprise={other} is neither true nor false");
            return Err(Failure::new(FailureKind::BadRequest, message, mend));
        }
    };
    let device = asked.value("device", mend)?;
    machine.remove_device(device, removal).map(|()| None)
}

fn inject(machine: &dyn Backend, asked: &Asked) -> Result<Option<String>, Failure> {
    let request = serde_json::from_slice(asked.body).map_err(|error| {
        Failure::new(
            FailureKind::BadRequest,
            format!("the body does not say what is to go wrong: {error}"),
            r#"send JSON like {"target": "mem0", "what": {"poison": {"dpa": 4096, "length": 64}}}"#,
        )
    })?;
    machine.inject(&request).map(|()| None)
}

fn change_extents(machine: &dyn Backend, asked: &Asked) -> Result<Option<String>, Failure> {
    let request = serde_json::from_slice(asked.body).map_err(|error| {
        Failure::new(
            FailureKind::BadRequest,
            format!("the body does not say what is to change: {error}"),
            r#"send JSON like {"device": "mem0", "change": {"add": [{"dpa": 1073741824, "length": 2097152}]}}"#,
        )
    })?;
    machine.change_extents(&request).map(|()| None)
}

fn number(key: &str, text: &str, mend: &str) -> Result<u64, Failure> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let bad = |_| {
        let message = format!("{key}={text} is not a number");
        Failure::new(FailureKind::BadRequest, message, mend)
    };
    number.map_err(bad)
}

/// JSON lines: what the trace is of, and its steps.
fn gpu_trace(machine: &dyn Backend, asked: &Asked) -> Result<Option<String>, Failure> {
    let mend = "write /v1/gpu/trace?device=NAME, with &from=N and &most=N for a part";
    let optional = |key: &str, default: u64| {
        let text = asked.optional(key);
        text.map_or(Ok(default), |text| number(key, text, mend))
    };
    let device = asked.value("device", mend)?;
    let (from, most) = (optional("from", 0)?, optional("most", MOST_STEPS)?);
    if most > MOST_STEPS {
        let message = format!("{most} steps are too many");
        let mend = format!("ask for at most {MOST_STEPS} at once, and then from the next one on");
        return Err(Failure::new(FailureKind::BadRequest, message, mend));
    }
    let (trace, events) = machine.gpu_trace(device, from, most)?;
    let mut lines = json(&trace)?.unwrap_or_default();
    for event in &events {
        lines += &json(event)?.unwrap_or_default();
    }
    Ok(Some(lines))
}

fn media(machine: &dyn Backend, asked: &Asked) -> Result<Option<String>, Failure> {
    let mend = "write /v1/media?device=NAME&dpa=N&length=N";
    let value = |key: &str| asked.value(key, mend);
    let number = |key: &str| number(key, value(key)?, mend);
    let (device, dpa, length) = (value("device")?, number("dpa")?, number("length")?);
    if length > MOST_MEDIA {
        let message = format!("{length} bytes are too many");
        let mend = format!("ask for at most {MOST_MEDIA} at once");
        return Err(Failure::new(FailureKind::BadRequest, message, mend));
    }
    let bytes = machine.media(device, dpa, length)?;
    json(&Media {
        device: device.to_string(),
        dpa,
        data: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}
