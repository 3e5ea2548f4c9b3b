//! Streams and events.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use crate::capture::{self, Capture};
use crate::context::Context;
use crate::driver::Driver;
use crate::graph::Action;
use crate::launch::Launch;
use crate::order::{Completion, Kind, Turn};
use crate::registry::Handle;
use crate::{Error, Result};

/// `CU_STREAM_NON_BLOCKING`.
pub const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
pub const DISABLE_TIMING: u32 = 2;

/// What a stream does in a turn.
enum Work {
    /// With one doorbell for all that stand one behind the other.
    Launch(Arc<Context>, Launch),
    Other(Box<dyn FnOnce() -> Result<()> + Send>),
}

/// Launches that go together at most.
const BATCH: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work that runs one after the other.
pub struct Stream {
    pub handle: Handle,
    pub flags: u32,
    pub priority: i32,
    context: Weak<Context>,
    kind: Kind,
    /// To the thread that does what is not done at once; it begins with the first such work.
    worker: Mutex<Option<Sender<(Turn, Work)>>>,
    /// What its work goes into instead of being done.
    capture: Mutex<Option<Arc<Capture>>>,
}

impl Stream {
    pub fn new(context: Weak<Context>, flags: u32, priority: i32) -> Self {
        let kind = if flags & NON_BLOCKING == 0 {
            Kind::Blocking
        } else {
            Kind::NonBlocking
        };
        Self::of_kind(context, kind, Handle::fresh(), flags, priority)
    }

    /// The default stream of a context.
    pub fn default_of(context: Weak<Context>) -> Self {
        Self::of_kind(context, Kind::Default, Handle::NULL, 0, 0)
    }

    fn of_kind(
        context: Weak<Context>,
        kind: Kind,
        handle: Handle,
        flags: u32,
        priority: i32,
    ) -> Self {
        Self {
            handle,
            flags,
            priority,
            context,
            kind,
            worker: Mutex::default(),
            capture: Mutex::default(),
        }
    }

    pub fn capture_place(&self) -> MutexGuard<'_, Option<Arc<Capture>>> {
        lock(&self.capture)
    }

    /// The capture that its work goes into.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_INVALIDATED` when something has spoiled it.
    pub fn capture(&self) -> Result<Option<Arc<Capture>>> {
        let capture = self.capture_place().clone();
        if let Some(capture) = &capture {
            capture.check()?;
        }
        Ok(capture)
    }

    /// Refuses what cannot be captured: work that is done at once or that a graph has no node for, and in the default
    /// stream what would wait for a stream that is captured. The attempt spoils the capture.
    pub fn refuse_if_captured(&self) -> Result<()> {
        if !capture::any() {
            return Ok(());
        }
        if let Some(capture) = &*self.capture_place() {
            capture.invalidate();
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        let implicit = self.implicit_captures()?;
        implicit.iter().for_each(|capture| capture.invalidate());
        if implicit.is_empty() {
            Ok(())
        } else {
            Err(Error::STREAM_CAPTURE_IMPLICIT)
        }
    }

    /// Captures of streams that the next work here would wait for, where this is the default stream.
    pub fn implicit_captures(&self) -> Result<Vec<Arc<Capture>>> {
        if self.kind != Kind::Default {
            return Ok(Vec::new());
        }
        self.captures_beside(|kind| kind == Kind::Blocking)
    }

    /// Captures of the context's streams of some kinds.
    pub fn captures_beside(&self, wanted: impl Fn(Kind) -> bool) -> Result<Vec<Arc<Capture>>> {
        if !capture::any() {
            return Ok(Vec::new());
        }
        let mut captures = Vec::new();
        for stream in Driver::get()?.streams.all() {
            if wanted(stream.kind) && stream.context.ptr_eq(&self.context) {
                captures.extend(stream.capture_place().clone());
            }
        }
        Ok(captures)
    }

    /// Has something done in its turn while the caller goes on, or captures it.
    pub fn perform(&self, action: Action) -> Result<()> {
        if let Some(capture) = self.capture()? {
            return capture.add(Driver::get()?, self.handle, action);
        }
        match action {
            Action::Empty | Action::Fill(None) => Ok(()),
            Action::Launch(launch) => self.launch(launch),
            Action::Copy(copy) => copy.submit(self),
            action => self.submit(move || action.perform()),
        }
    }

    /// # Errors
    /// `CONTEXT_IS_DESTROYED` when the context is gone.
    pub fn context(&self) -> Result<Arc<Context>> {
        self.context.upgrade().ok_or(Error::CONTEXT_IS_DESTROYED)
    }

    fn turn(&self, context: &Context) -> Turn {
        context.order.queue(self.handle, self.kind)
    }

    /// Does work in its turn, here.
    pub fn run(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.refuse_if_captured()?;
        let context = self.context()?;
        let result = self.turn(&context).take(|| {
            context.check()?;
            work()
        });
        if let Err(error) = result {
            context.note(error);
        }
        result
    }

    /// Does work in its turn while the caller goes on.
    pub fn submit(&self, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        self.refuse_if_captured()?;
        let context = self.context()?;
        let worker = self.worker();
        let turn = self.turn(&context);
        let guarded = move || {
            let result = context.check().and_then(|()| work());
            if let Err(error) = result {
                context.note_late(error);
            }
            result
        };
        worker.hand_over(turn, Work::Other(Box::new(guarded)))
    }

    /// Has a kernel run in its turn while the caller goes on.
    fn launch(&self, launch: Launch) -> Result<()> {
        self.refuse_if_captured()?;
        let context = self.context()?;
        if !Arc::ptr_eq(&context, &launch.context()?) {
            return Err(Error::INVALID_HANDLE);
        }
        let worker = self.worker();
        let turn = self.turn(&context);
        worker.hand_over(turn, Work::Launch(context, launch))
    }

    /// The stream's thread, for whoever takes a turn for it. Nobody else takes one meanwhile: the thread would wait for
    /// ever if work came to it before work that has an earlier turn.
    fn worker(&self) -> Worker<'_> {
        Worker(lock(&self.worker))
    }

    /// Has later work wait for what an event marks.
    pub fn wait_for(&self, event: &Event) -> Result<()> {
        let marked = lock(&event.recorded).clone();
        match (self.capture()?, marked) {
            (_, Mark::Nothing) => Ok(()),
            (_, Mark::Captured(capture, nodes)) => capture.follow(self, &nodes),
            (Some(capture), Mark::Work(_)) => {
                capture.invalidate();
                Err(Error::STREAM_CAPTURE_ISOLATION)
            }
            (None, Mark::Work(completion)) => self.mark(Some(completion)).map(|_| ()),
        }
    }

    /// A completion that ends when all work up to now has, and all of `after`.
    fn mark(&self, after: Option<Arc<Completion>>) -> Result<Arc<Completion>> {
        let context = self.context()?;
        let worker = self.worker();
        let mut turn = self.turn(&context);
        turn.after.extend(after);
        let completion = turn.completion.clone();
        if turn.is_due() {
            turn.take(|| Ok(()))?;
        } else {
            worker.hand_over(turn, Work::Other(Box::new(|| Ok(()))))?;
        }
        Ok(completion)
    }

    pub fn is_idle(&self) -> Result<bool> {
        self.refuse_if_captured()?;
        Ok(self.context()?.order.tail(self.handle).is_none())
    }

    /// Waits for all work up to now; for the default stream, for that of the streams that it waits for too.
    pub fn synchronize(&self) -> Result<()> {
        self.refuse_if_captured()?;
        let context = self.context()?;
        if self.kind == Kind::Default {
            self.mark(None)?.wait();
        } else if let Some(tail) = context.order.tail(self.handle) {
            tail.wait();
        }
        context.flush_output();
        context.check_late()
    }
}

/// A stream's thread, while its next work is given a turn.
struct Worker<'a>(MutexGuard<'a, Option<Sender<(Turn, Work)>>>);

impl Worker<'_> {
    fn hand_over(mut self, turn: Turn, work: Work) -> Result<()> {
        if self.0.is_none() {
            *self.0 = Some(start_worker()?);
        }
        let sender = self.0.as_ref().ok_or(Error::UNKNOWN)?;
        sender.send((turn, work)).map_err(|_| Error::UNKNOWN)
    }
}

fn start_worker() -> Result<Sender<(Turn, Work)>> {
    let (sender, receiver) = mpsc::channel::<(Turn, Work)>();
    thread::Builder::new()
        .name("cuda-stream".into())
        .spawn(move || {
            let mut next = None;
            while let Some((turn, work)) = next.take().or_else(|| receiver.recv().ok()) {
                match work {
                    // Its result went to the context.
                    Work::Other(work) => drop(turn.take(work)),
                    Work::Launch(context, launch) => {
                        next = launch_batch(&context, (turn, launch), &receiver);
                    }
                }
            }
        })
        .map_err(|_| Error::OUT_OF_MEMORY)?;
    Ok(sender)
}

/// Runs a kernel and all that wait right behind it for nothing else. Returns work that came next and is of another kind.
fn launch_batch(
    context: &Context,
    first: (Turn, Launch),
    receiver: &Receiver<(Turn, Work)>,
) -> Option<(Turn, Work)> {
    first.0.wait();
    let mut ends = vec![first.0.completion.clone()];
    let mut batch = vec![first];
    let mut next = None;
    while batch.len() < BATCH
        && let Ok((turn, work)) = receiver.try_recv()
    {
        match work {
            Work::Launch(_, launch) if turn.follows(&ends) => {
                ends.push(turn.completion.clone());
                batch.push((turn, launch));
            }
            other => {
                next = Some((turn, other));
                break;
            }
        }
    }
    let (turns, launches): (Vec<Turn>, Vec<Launch>) = batch.into_iter().unzip();
    // A turn ends when it is dropped.
    let mut turns = turns.into_iter();
    let outcome = context.check().and_then(|()| {
        let requests: Vec<_> = launches.iter().map(Launch::request).collect();
        context.channel.launch(&requests, |end| {
            if let Err(error) = end {
                context.note_late(error);
            }
            drop(turns.next());
        })
    });
    if let Err(error) = outcome {
        context.note_late(error);
    }
    next
}

/// What an event was recorded behind.
#[derive(Clone, Default)]
enum Mark {
    #[default]
    Nothing,
    Work(Arc<Completion>),
    /// Nodes of a graph.
    Captured(Arc<Capture>, Vec<Handle>),
}

/// A mark in a stream.
pub struct Event {
    pub flags: u32,
    context: Weak<Context>,
    recorded: Mutex<Mark>,
}

impl Event {
    pub fn new(context: &Arc<Context>, flags: u32) -> Self {
        Self {
            flags,
            context: Arc::downgrade(context),
            recorded: Mutex::default(),
        }
    }

    pub fn belongs_to(&self, context: &Arc<Context>) -> bool {
        self.context.as_ptr() == Arc::as_ptr(context)
    }

    /// Marks the end of what a stream has to do up to now.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        let mark = match stream.capture()? {
            Some(capture) => {
                let nodes = capture.ends_of(stream.handle)?;
                Mark::Captured(capture, nodes)
            }
            None => {
                stream.refuse_if_captured()?;
                Mark::Work(stream.mark(None)?)
            }
        };
        *lock(&self.recorded) = mark;
        Ok(())
    }

    /// The end of the work before the mark.
    ///
    /// # Errors
    /// `CAPTURED_EVENT` when that work was captured: it has no end. The question spoils the capture.
    fn recorded(&self) -> Result<Option<Arc<Completion>>> {
        match &*lock(&self.recorded) {
            Mark::Nothing => Ok(None),
            Mark::Work(completion) => Ok(Some(completion.clone())),
            Mark::Captured(capture, _) => {
                capture.invalidate();
                Err(Error::CAPTURED_EVENT)
            }
        }
    }

    /// Whether the work before the mark has ended; so it has when nothing was recorded.
    pub fn is_complete(&self) -> Result<bool> {
        let recorded = self.recorded()?;
        Ok(recorded.is_none_or(|completion| completion.end().is_some()))
    }

    pub fn synchronize(&self) -> Result<()> {
        let Some(completion) = self.recorded()? else {
            return Ok(());
        };
        completion.wait();
        let Some(context) = self.context.upgrade() else {
            return Ok(());
        };
        context.flush_output();
        context.check()
    }

    /// Milliseconds from an earlier event to this one.
    pub fn milliseconds_since(&self, start: &Event) -> Result<f32> {
        if (self.flags | start.flags) & DISABLE_TIMING != 0 {
            return Err(Error::INVALID_HANDLE);
        }
        let time = |event: &Event| {
            let completion = event.recorded()?.ok_or(Error::INVALID_HANDLE)?;
            completion.end().ok_or(Error::NOT_READY)
        };
        let (from, to) = (time(start)?, time(self)?);
        Ok(if to >= from {
            (to - from).as_secs_f32() * 1e3
        } else {
            -(from - to).as_secs_f32() * 1e3
        })
    }
}
