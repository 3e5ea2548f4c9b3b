//! Stream capture: work that goes into a graph instead of being done.
//!
//! A capture begins in one stream. Another one joins it by waiting for an event that was recorded in it, and must have been
//! waited for in the same way when the capture ends where it began. What CUDA calls unsafe during a capture, such as an
//! allocation, is let through whatever the mode: nothing here would wait for the capture. Allocations in the order of a stream
//! are refused, since a graph here has no memory of its own.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::driver::Driver;
use crate::ffi::In;
use crate::graph::{Action, Graph};
use crate::registry::Handle;
use crate::stream::Stream;
use crate::{Error, Result};

/// `CUstreamCaptureMode`: the first two end where they began.
const RELAXED: u32 = 2;
/// `CUstreamCaptureStatus`.
pub const NONE: u32 = 0;
const ACTIVE: u32 = 1;
const INVALIDATED: u32 = 2;

/// Captures that have begun and not ended.
static OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What `cuThreadExchangeStreamCaptureMode` exchanges.
    static MODE: Cell<u32> = const { Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// # Errors
/// `INVALID_VALUE` for a number that is no mode.
fn check_mode(mode: u32) -> Result<()> {
    if mode > RELAXED {
        return Err(Error::INVALID_VALUE);
    }
    Ok(())
}

/// Gives the thread another mode, and tells the one before.
pub fn exchange_mode(mode: u32) -> Result<u32> {
    check_mode(mode)?;
    Ok(MODE.replace(mode))
}

/// Whether anything is being captured.
pub fn any() -> bool {
    OPEN.load(Ordering::Relaxed) != 0
}

pub struct Capture {
    pub id: u64,
    graph: Handle,
    /// The graph is the program's, and stays when the capture fails.
    given: bool,
    origin: Handle,
    /// The thread that must end it.
    thread: Option<ThreadId>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    invalid: bool,
    over: bool,
    /// By stream, the nodes that its next work comes after.
    ends: BTreeMap<Handle, Vec<Handle>>,
    /// What each captured node comes after.
    after: BTreeMap<Handle, Vec<Handle>>,
    /// The last answer about a stream's ends, which the program may look at until it asks again.
    shown: Vec<Handle>,
    /// Kinds of the edges to them, which are all plain.
    edges: Vec<u64>,
}

/// What a program hears of a capture.
pub struct Info {
    pub status: u32,
    pub id: u64,
    pub graph: Handle,
    pub ends: In<Handle>,
    pub edges: In<u64>,
    pub count: usize,
}

impl Capture {
    /// Begins to capture a stream, into a new graph or behind nodes of one of the program's.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` for the default stream, `ILLEGAL_STATE` for a stream that is being captured.
    pub fn begin(
        driver: &Driver,
        stream: &Stream,
        into: Option<(Handle, Vec<Handle>)>,
        mode: u32,
    ) -> Result<()> {
        check_mode(mode)?;
        if stream.handle == Handle::NULL {
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        let mut place = stream.capture_place();
        if place.is_some() {
            return Err(Error::ILLEGAL_STATE);
        }
        let given = into.is_some();
        let (graph, first) = match into {
            Some((graph, first)) => {
                let nodes = driver.graphs.get(graph)?.nodes();
                if !first.iter().all(|node| nodes.contains(node)) {
                    return Err(Error::INVALID_VALUE);
                }
                (graph, first)
            }
            None => (driver.graphs.add(Arc::new(Graph::default())), Vec::new()),
        };
        let state = State {
            ends: [(stream.handle, first)].into(),
            ..State::default()
        };
        OPEN.fetch_add(1, Ordering::Relaxed);
        *place = Some(Arc::new(Self {
            id: Handle::fresh().0 as u64,
            graph,
            given,
            origin: stream.handle,
            thread: (mode != RELAXED).then(|| thread::current().id()),
            state: Mutex::new(state),
        }));
        Ok(())
    }

    fn valid(&self) -> Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.invalid {
            return Err(Error::STREAM_CAPTURE_INVALIDATED);
        }
        Ok(state)
    }

    /// Whether work can still go into it.
    pub fn check(&self) -> Result<()> {
        self.valid().map(|_| ())
    }

    /// Spoils the capture: it goes on to its end, and gives no graph.
    pub fn invalidate(&self) {
        lock(&self.state).invalid = true;
    }

    /// Puts work of a stream into the graph.
    pub fn add(&self, driver: &Driver, stream: Handle, action: Action) -> Result<()> {
        let mut state = self.valid()?;
        let after = state.ends.get(&stream).cloned().unwrap_or_default();
        let node = driver.graphs.get(self.graph)?.add(driver, &after, action)?;
        state.after.insert(node, after);
        state.ends.insert(stream, vec![node]);
        Ok(())
    }

    /// The nodes that a stream's next work comes after: what an event marks.
    pub fn ends_of(&self, stream: Handle) -> Result<Vec<Handle>> {
        Ok(self.valid()?.ends.get(&stream).cloned().unwrap_or_default())
    }

    /// Has a stream's next work come after nodes that an event has marked; the stream joins if it is in no capture.
    pub fn follow(self: &Arc<Self>, stream: &Stream, marked: &[Handle]) -> Result<()> {
        if stream.handle == Handle::NULL {
            self.invalidate();
            return Err(Error::STREAM_CAPTURE_IMPLICIT);
        }
        let mut place = stream.capture_place();
        if let Some(other) = place.as_ref().filter(|other| !Arc::ptr_eq(other, self)) {
            other.invalidate();
            self.invalidate();
            return Err(Error::STREAM_CAPTURE_MERGE);
        }
        let mut state = self.valid()?;
        if state.over {
            return Err(Error::CAPTURED_EVENT);
        }
        let ends = state.ends.entry(stream.handle).or_default();
        for node in marked {
            if !ends.contains(node) {
                ends.push(*node);
            }
        }
        *place = Some(self.clone());
        Ok(())
    }

    pub fn info(&self, stream: Handle) -> Info {
        let mut state = lock(&self.state);
        let ends = state.ends.get(&stream).cloned().unwrap_or_default();
        state.edges = vec![0; ends.len()];
        state.shown = ends;
        Info {
            status: if state.invalid { INVALIDATED } else { ACTIVE },
            id: self.id,
            graph: self.graph,
            ends: In::of(&state.shown),
            edges: In::of(&state.edges),
            count: state.shown.len(),
        }
    }

    /// Ends the capture that began in a stream; returns its graph.
    pub fn end(driver: &Driver, stream: &Stream) -> Result<Handle> {
        let capture = stream.capture_place().clone().ok_or(Error::ILLEGAL_STATE)?;
        if capture.origin != stream.handle {
            capture.invalidate();
            return Err(Error::STREAM_CAPTURE_UNMATCHED);
        }
        if capture
            .thread
            .is_some_and(|thread| thread != thread::current().id())
        {
            return Err(Error::STREAM_CAPTURE_WRONG_THREAD);
        }
        let result = match lock(&capture.state) {
            state if state.invalid => Err(Error::STREAM_CAPTURE_INVALIDATED),
            state if !state.is_joined(capture.origin) => Err(Error::STREAM_CAPTURE_UNJOINED),
            _ => Ok(capture.graph),
        };
        capture.close(driver);
        if result.is_err()
            && !capture.given
            && let Ok(graph) = driver.graphs.remove(capture.graph)
        {
            graph.destroy(driver);
        }
        result
    }

    /// Lets go of all streams that were in the capture.
    fn close(self: &Arc<Self>, driver: &Driver) {
        let streams: Vec<Handle> = {
            let mut state = lock(&self.state);
            if !std::mem::replace(&mut state.over, true) {
                OPEN.fetch_sub(1, Ordering::Relaxed);
            }
            state.ends.keys().copied().collect()
        };
        for stream in streams
            .into_iter()
            .filter_map(|stream| driver.streams.find(stream))
        {
            let mut place = stream.capture_place();
            if place
                .as_ref()
                .is_some_and(|capture| Arc::ptr_eq(capture, self))
            {
                *place = None;
            }
        }
    }

    /// A stream goes while it is captured: so does the capture, with the stream that it began in, or else its graph.
    pub fn forsake(self: &Arc<Self>, driver: &Driver, stream: Handle) {
        self.invalidate();
        if stream == self.origin {
            self.close(driver);
            if !self.given
                && let Ok(graph) = driver.graphs.remove(self.graph)
            {
                graph.destroy(driver);
            }
        }
    }
}

impl Drop for Capture {
    /// With its context a capture goes, too.
    fn drop(&mut self) {
        if !lock(&self.state).over {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl State {
    /// Whether all that was captured comes before the end of one stream.
    fn is_joined(&self, origin: Handle) -> bool {
        let mut before = BTreeSet::new();
        let mut next: Vec<Handle> = self.ends.get(&origin).cloned().unwrap_or_default();
        while let Some(node) = next.pop() {
            if before.insert(node) {
                next.extend(self.after.get(&node).into_iter().flatten());
            }
        }
        self.after.keys().all(|node| before.contains(node))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::stream::NON_BLOCKING;

    /// Streams in no context, and a driver that knows them.
    fn streams() -> (Driver, [Arc<Stream>; 2]) {
        let driver = Driver::default();
        let streams = [(); 2].map(|()| Arc::new(Stream::new(Weak::new(), NON_BLOCKING, 0)));
        for stream in &streams {
            driver.streams.keep(stream.handle, stream.clone());
        }
        (driver, streams)
    }

    fn capture_of(stream: &Stream) -> Arc<Capture> {
        stream.capture_place().clone().unwrap()
    }

    #[test]
    fn work_of_one_stream_becomes_a_chain_of_nodes() {
        let (driver, [stream, _]) = streams();
        Capture::begin(&driver, &stream, None, 0).unwrap();
        assert_eq!(
            Capture::begin(&driver, &stream, None, 0),
            Err(Error::ILLEGAL_STATE)
        );
        let capture = capture_of(&stream);
        for _ in 0..3 {
            capture.add(&driver, stream.handle, Action::Empty).unwrap();
        }
        let info = capture.info(stream.handle);
        assert_eq!((info.status, info.count), (ACTIVE, 1));
        let graph = Capture::end(&driver, &stream).unwrap();
        assert_eq!(graph, info.graph);
        let nodes = driver.graphs.get(graph).unwrap().nodes();
        assert_eq!(nodes.len(), 3);
        assert_eq!(info.ends.get(), Ok(nodes[2]));
        assert!(stream.capture_place().is_none());
        assert_eq!(Capture::end(&driver, &stream), Err(Error::ILLEGAL_STATE));
    }

    #[test]
    fn a_stream_that_joined_must_be_waited_for() {
        for joined in [false, true] {
            let (driver, [first, second]) = streams();
            Capture::begin(&driver, &first, None, 0).unwrap();
            let capture = capture_of(&first);
            capture.add(&driver, first.handle, Action::Empty).unwrap();
            capture
                .follow(&second, &capture.ends_of(first.handle).unwrap())
                .unwrap();
            capture.add(&driver, second.handle, Action::Empty).unwrap();
            assert_eq!(
                Capture::end(&driver, &second),
                Err(Error::STREAM_CAPTURE_UNMATCHED)
            );
            // That has spoiled this one, so another.
            assert_eq!(
                Capture::end(&driver, &first),
                Err(Error::STREAM_CAPTURE_INVALIDATED)
            );
            Capture::begin(&driver, &first, None, 0).unwrap();
            let capture = capture_of(&first);
            capture.add(&driver, first.handle, Action::Empty).unwrap();
            capture
                .follow(&second, &capture.ends_of(first.handle).unwrap())
                .unwrap();
            capture.add(&driver, second.handle, Action::Empty).unwrap();
            if joined {
                capture
                    .follow(&first, &capture.ends_of(second.handle).unwrap())
                    .unwrap();
            }
            assert_eq!(Capture::end(&driver, &first).is_ok(), joined);
            assert!(second.capture_place().is_none());
        }
    }

    #[test]
    fn a_capture_that_fails_leaves_no_graph_but_the_programs_own() {
        let (driver, [stream, _]) = streams();
        Capture::begin(&driver, &stream, None, 0).unwrap();
        let capture = capture_of(&stream);
        let graph = capture.info(stream.handle).graph;
        capture.invalidate();
        assert_eq!(
            capture.add(&driver, stream.handle, Action::Empty),
            Err(Error::STREAM_CAPTURE_INVALIDATED)
        );
        assert_eq!(
            Capture::end(&driver, &stream),
            Err(Error::STREAM_CAPTURE_INVALIDATED)
        );
        assert!(driver.graphs.find(graph).is_none());

        let own = driver.graphs.add(Arc::new(Graph::default()));
        let node = driver
            .graphs
            .get(own)
            .unwrap()
            .add(&driver, &[], Action::Empty)
            .unwrap();
        let foreign = Capture::begin(&driver, &stream, Some((own, vec![Handle(1)])), 0);
        assert_eq!(foreign, Err(Error::INVALID_VALUE));
        Capture::begin(&driver, &stream, Some((own, vec![node])), 0).unwrap();
        capture_of(&stream)
            .add(&driver, stream.handle, Action::Empty)
            .unwrap();
        assert_eq!(Capture::end(&driver, &stream), Ok(own));
        Capture::begin(&driver, &stream, Some((own, vec![node])), 0).unwrap();
        capture_of(&stream).invalidate();
        Capture::end(&driver, &stream).unwrap_err();
        assert_eq!(driver.graphs.get(own).unwrap().nodes().len(), 2);
    }

    #[test]
    fn two_captures_do_not_merge() {
        let (driver, [first, second]) = streams();
        Capture::begin(&driver, &first, None, 0).unwrap();
        Capture::begin(&driver, &second, None, 0).unwrap();
        let marked = capture_of(&first).ends_of(first.handle).unwrap();
        assert_eq!(
            capture_of(&first).follow(&second, &marked),
            Err(Error::STREAM_CAPTURE_MERGE)
        );
        for stream in [first, second] {
            assert_eq!(
                Capture::end(&driver, &stream),
                Err(Error::STREAM_CAPTURE_INVALIDATED)
            );
        }
    }

    #[test]
    fn the_thread_that_began_ends_unless_the_capture_is_relaxed() {
        for mode in 0..=RELAXED {
            let (driver, [stream, _]) = streams();
            Capture::begin(&driver, &stream, None, mode).unwrap();
            let elsewhere = thread::scope(|scope| {
                scope
                    .spawn(|| Capture::end(&driver, &stream))
                    .join()
                    .unwrap()
            });
            if mode == RELAXED {
                assert!(elsewhere.is_ok());
            } else {
                assert_eq!(elsewhere, Err(Error::STREAM_CAPTURE_WRONG_THREAD));
                Capture::end(&driver, &stream).unwrap();
            }
        }
        assert_eq!(check_mode(3), Err(Error::INVALID_VALUE));
        assert_eq!(exchange_mode(1), Ok(0));
        assert_eq!(exchange_mode(0), Ok(1));
    }
}
