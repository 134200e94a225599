//! The minimal, deterministic WASI 0.2 that components built with a standard library ask for.
//!
//! cli, io, clocks, random and filesystem are answered for every 0.2 patch version: an empty environment, no arguments, no terminal,
//! an empty standard input, standard output and error that go to the guest's log, a wall clock that shows the processing time of the
//! call, a monotonic clock that only the guest's own reading and waiting advances, and random numbers from a seed. There is no file:
//! nothing is preopened, and everything else of the filesystem traps. Sockets and http are refused by name when a component is loaded.
//!
//! Resources are plain numbers; only pollables have content (the time at which they are ready).

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType},
};

use crate::{host::Host, log::LogLevel};

/// The packages of WASI that are answered.
pub(crate) const ANSWERED: [&str; 5] = ["cli", "clocks", "filesystem", "io", "random"];

/// Most pollables that a guest may hold at once.
const POLLABLES_MAX: usize = 4096;
/// Most random bytes in one call of the guest.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// How far the monotonic clock moves when it is read, in ns: so that a guest that waits by reading it comes to an end.
const TICK_NS: u64 = 1_000;
/// What an output stream says it can take at once, in bytes.
const WRITE_BYTES_MAX: u64 = 1 << 16;

/// The world as one instance sees it.
pub(crate) struct VirtualWorld {
    wall_ms: i64,
    monotonic_ns: u64,
    random: SplitMix64,
    /// When each pollable is ready, on the monotonic clock; none: free.
    pollables: Vec<Option<u64>>,
    standard_output: LineBuffer,
    standard_error: LineBuffer,
}

impl VirtualWorld {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            wall_ms: 0,
            monotonic_ns: 0,
            random: SplitMix64(seed),
            pollables: Vec::new(),
            standard_output: LineBuffer::default(),
            standard_error: LineBuffer::default(),
        }
    }

    /// Shows this time from now on.
    pub(crate) fn set_wall_clock(&mut self, processing_time_ms: i64) {
        self.wall_ms = processing_time_ms;
    }

    fn read_monotonic(&mut self) -> u64 {
        self.monotonic_ns = self.monotonic_ns.saturating_add(TICK_NS);
        self.monotonic_ns
    }

    fn advance_to(&mut self, ready_ns: u64) {
        self.monotonic_ns = self.monotonic_ns.max(ready_ns);
    }

    fn pollable(&mut self, ready_ns: u64) -> wasmtime::Result<Resource<Pollable>> {
        let free = self.pollables.iter().position(Option::is_none);
        let slot = match free {
            Some(slot) => slot,
            None if self.pollables.len() < POLLABLES_MAX => {
                self.pollables.push(None);
                self.pollables.len() - 1
            }
            None => return Err(wasmtime::format_err!("the component holds more than {POLLABLES_MAX} pollables")),
        };
        self.pollables[slot] = Some(ready_ns);
        Ok(Resource::new_own(u32::try_from(slot).expect("few pollables")))
    }

    fn ready_ns(&self, pollable: &Resource<Pollable>) -> u64 {
        self.pollables.get(pollable.rep() as usize).copied().flatten().unwrap_or(0)
    }

    fn drop_pollable(&mut self, rep: u32) {
        if let Some(slot) = self.pollables.get_mut(rep as usize) {
            *slot = None;
        }
    }

    /// Numbers of the pollables that are ready; if none is, time moves on to the first that will be.
    fn poll(&mut self, pollables: &[Resource<Pollable>]) -> Vec<u32> {
        let first = pollables.iter().map(|pollable| self.ready_ns(pollable)).min().unwrap_or(0);
        self.advance_to(first);
        let ready = (0_u32..).zip(pollables).filter(|(_, pollable)| self.ready_ns(pollable) <= self.monotonic_ns);
        ready.map(|(index, _)| index).collect()
    }

    fn wall(&self) -> Datetime {
        let since = self.wall_ms.max(0).unsigned_abs();
        Datetime { seconds: since / 1000, nanoseconds: u32::try_from(since % 1000).expect("below 1000") * 1_000_000 }
    }
}

/// Random numbers that are the same for the same seed. Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = count.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

/// Gathers written bytes to lines.
#[derive(Default)]
struct LineBuffer(Vec<u8>);

impl LineBuffer {
    const LINE_BYTES_MAX: usize = 8 << 10;

    /// The lines that `bytes` complete.
    fn write(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for mut part in bytes.split_inclusive(|byte| *byte == b'\n') {
            while !part.is_empty() {
                let (fits, rest) = part.split_at(part.len().min(Self::LINE_BYTES_MAX - self.0.len()));
                self.0.extend_from_slice(fits);
                if fits.ends_with(b"\n") || self.0.len() == Self::LINE_BYTES_MAX {
                    lines.extend(self.take());
                }
                part = rest;
            }
        }
        lines
    }

    /// The line begun, if there is any.
    fn take(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.0);
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        (!line.is_empty()).then_some(line)
    }
}

struct InputStream;
struct OutputStream;
struct Pollable;
struct IoError;
struct Descriptor;
struct DirectoryEntryStream;
struct TerminalInput;
struct TerminalOutput;

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

type Context<'a> = StoreContextMut<'a, Host>;
type Instance<'a> = LinkerInstance<'a, Host>;
type Linked = wasmtime::Result<()>;
type Streamed<T> = wasmtime::Result<(Result<T, StreamError>,)>;

const STANDARD_OUTPUT: u32 = 1;

fn write(mut cx: Context<'_>, stream: &Resource<OutputStream>, bytes: &[u8]) {
    let host = cx.data_mut();
    let (lines, level) = match stream.rep() {
        STANDARD_OUTPUT => (host.world.standard_output.write(bytes), LogLevel::Info),
        _ => (host.world.standard_error.write(bytes), LogLevel::Warn),
    };
    lines.iter().for_each(|line| host.log(level, line, None));
}

fn flush(mut cx: Context<'_>, stream: &Resource<OutputStream>) {
    let host = cx.data_mut();
    let (line, level) = match stream.rep() {
        STANDARD_OUTPUT => (host.world.standard_output.take(), LogLevel::Info),
        _ => (host.world.standard_error.take(), LogLevel::Warn),
    };
    line.iter().for_each(|line| host.log(level, line, None));
}

/// Defines `function` of `interface` to trap when it is called.
pub(crate) fn define_as_trap(linker: &mut Instance<'_>, interface: &str, function: &str) -> Linked {
    let message = format!("`wasi:{interface}` {function} is not available to operators");
    linker.func_new(function, move |_, _, _, _| Err(wasmtime::format_err!("{message}")))
}

/// Defines what we answer of `interface` (`io/poll`, without namespace and version).
pub(crate) fn define(linker: &mut Instance<'_>, interface: &str) -> Linked {
    match interface {
        "cli/environment" => environment(linker),
        "cli/exit" => exit(linker),
        "cli/stdin" => linker.func_wrap("get-stdin", |_, (): ()| Ok((Resource::<InputStream>::new_own(0),))),
        "cli/stdout" => linker.func_wrap("get-stdout", |_, (): ()| Ok((Resource::<OutputStream>::new_own(STANDARD_OUTPUT),))),
        "cli/stderr" => linker.func_wrap("get-stderr", |_, (): ()| Ok((Resource::<OutputStream>::new_own(2),))),
        "cli/terminal-input" => resource::<TerminalInput>(linker, "terminal-input"),
        "cli/terminal-output" => resource::<TerminalOutput>(linker, "terminal-output"),
        "cli/terminal-stdin" => linker.func_wrap("get-terminal-stdin", |_, (): ()| Ok((None::<Resource<TerminalInput>>,))),
        "cli/terminal-stdout" => linker.func_wrap("get-terminal-stdout", |_, (): ()| Ok((None::<Resource<TerminalOutput>>,))),
        "cli/terminal-stderr" => linker.func_wrap("get-terminal-stderr", |_, (): ()| Ok((None::<Resource<TerminalOutput>>,))),
        "clocks/monotonic-clock" => monotonic_clock(linker),
        "clocks/wall-clock" => wall_clock(linker),
        "filesystem/preopens" => linker.func_wrap("get-directories", |_, (): ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),))),
        "filesystem/types" => {
            resource::<Descriptor>(linker, "descriptor")?;
            resource::<DirectoryEntryStream>(linker, "directory-entry-stream")
        }
        "io/error" => {
            resource::<IoError>(linker, "error")?;
            linker.func_wrap("[method]error.to-debug-string", |_, (_,): (Resource<IoError>,)| Ok(("closed".to_owned(),)))
        }
        "io/poll" => poll(linker),
        "io/streams" => {
            input_stream(linker)?;
            output_stream(linker)
        }
        "random/random" => {
            linker.func_wrap("get-random-bytes", |mut cx, (count,): (u64,)| random_bytes(&mut cx, count))?;
            linker.func_wrap("get-random-u64", |mut cx, (): ()| Ok((cx.data_mut().world.random.next(),)))
        }
        "random/insecure" => {
            linker.func_wrap("get-insecure-random-bytes", |mut cx, (count,): (u64,)| random_bytes(&mut cx, count))?;
            linker.func_wrap("get-insecure-random-u64", |mut cx, (): ()| Ok((cx.data_mut().world.random.next(),)))
        }
        "random/insecure-seed" => linker.func_wrap("insecure-seed", |mut cx, (): ()| {
            let random = &mut cx.data_mut().world.random;
            Ok(((random.next(), random.next()),))
        }),
        _ => Ok(()),
    }
}

fn resource<T: 'static>(linker: &mut Instance<'_>, name: &str) -> Linked {
    linker.resource(name, ResourceType::host::<T>(), |_, _| Ok(()))
}

fn random_bytes(cx: &mut Context<'_>, count: u64) -> wasmtime::Result<(Vec<u8>,)> {
    if count > RANDOM_BYTES_MAX {
        return Err(wasmtime::format_err!("the component asked for {count} random bytes at once; {RANDOM_BYTES_MAX} is the most"));
    }
    let count = usize::try_from(count).expect("bounded above");
    Ok((cx.data_mut().world.random.bytes(count),))
}

fn environment(linker: &mut Instance<'_>) -> Linked {
    linker.func_wrap("get-environment", |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    linker.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
    linker.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))
}

fn exit(linker: &mut Instance<'_>) -> Linked {
    linker.func_wrap("exit", |_, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
        Err(wasmtime::format_err!("the component called exit with {}", if status.is_ok() { "success" } else { "failure" }))
    })?;
    linker.func_wrap("exit-with-code", |_, (code,): (u8,)| -> wasmtime::Result<()> {
        Err(wasmtime::format_err!("the component called exit with code {code}"))
    })
}

fn monotonic_clock(linker: &mut Instance<'_>) -> Linked {
    linker.func_wrap("now", |mut cx, (): ()| Ok((cx.data_mut().world.read_monotonic(),)))?;
    linker.func_wrap("resolution", |_, (): ()| Ok((TICK_NS,)))?;
    linker.func_wrap("subscribe-instant", |mut cx, (when,): (u64,)| Ok((cx.data_mut().world.pollable(when)?,)))?;
    linker.func_wrap("subscribe-duration", |mut cx, (duration,): (u64,)| {
        let world = &mut cx.data_mut().world;
        let ready = world.monotonic_ns.saturating_add(duration);
        Ok((world.pollable(ready)?,))
    })
}

fn wall_clock(linker: &mut Instance<'_>) -> Linked {
    linker.func_wrap("now", |cx, (): ()| Ok((cx.data().world.wall(),)))?;
    linker.func_wrap("resolution", |_, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))
}

fn poll(linker: &mut Instance<'_>) -> Linked {
    linker.resource("pollable", ResourceType::host::<Pollable>(), |mut cx, rep| {
        cx.data_mut().world.drop_pollable(rep);
        Ok(())
    })?;
    linker.func_wrap("poll", |mut cx, (pollables,): (Vec<Resource<Pollable>>,)| {
        if pollables.is_empty() {
            return Err(wasmtime::format_err!("the component polls nothing, which would wait for ever"));
        }
        Ok((cx.data_mut().world.poll(&pollables),))
    })?;
    linker.func_wrap("[method]pollable.ready", |cx, (pollable,): (Resource<Pollable>,)| {
        let world = &cx.data().world;
        Ok((world.ready_ns(&pollable) <= world.monotonic_ns,))
    })?;
    linker.func_wrap("[method]pollable.block", |mut cx, (pollable,): (Resource<Pollable>,)| {
        let world = &mut cx.data_mut().world;
        world.advance_to(world.ready_ns(&pollable));
        Ok(())
    })
}

/// Standard input: at its end from the beginning.
fn input_stream(linker: &mut Instance<'_>) -> Linked {
    resource::<InputStream>(linker, "input-stream")?;
    for read in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        linker.func_wrap(read, |_, (_, _): (Resource<InputStream>, u64)| -> Streamed<Vec<u8>> { Ok((Err(StreamError::Closed),)) })?;
    }
    for skip in ["[method]input-stream.skip", "[method]input-stream.blocking-skip"] {
        linker.func_wrap(skip, |_, (_, _): (Resource<InputStream>, u64)| -> Streamed<u64> { Ok((Err(StreamError::Closed),)) })?;
    }
    linker.func_wrap("[method]input-stream.subscribe", |mut cx, (_,): (Resource<InputStream>,)| Ok((cx.data_mut().world.pollable(0)?,)))
}

/// Standard output and error: always ready, into the log.
fn output_stream(linker: &mut Instance<'_>) -> Linked {
    resource::<OutputStream>(linker, "output-stream")?;
    linker.func_wrap("[method]output-stream.check-write", |_, (_,): (Resource<OutputStream>,)| -> Streamed<u64> {
        Ok((Ok(WRITE_BYTES_MAX),))
    })?;
    linker.func_wrap("[method]output-stream.write", |cx, (stream, bytes): (Resource<OutputStream>, Vec<u8>)| -> Streamed<()> {
        write(cx, &stream, &bytes);
        Ok((Ok(()),))
    })?;
    let write_and_flush = |mut cx: Context<'_>, (stream, bytes): (Resource<OutputStream>, Vec<u8>)| -> Streamed<()> {
        use wasmtime::AsContextMut as _;
        write(cx.as_context_mut(), &stream, &bytes);
        Ok((Ok(()),))
    };
    linker.func_wrap("[method]output-stream.blocking-write-and-flush", write_and_flush)?;
    for name in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        linker.func_wrap(name, |cx, (stream,): (Resource<OutputStream>,)| -> Streamed<()> {
            flush(cx, &stream);
            Ok((Ok(()),))
        })?;
    }
    linker.func_wrap("[method]output-stream.subscribe", |mut cx, (_,): (Resource<OutputStream>,)| Ok((cx.data_mut().world.pollable(0)?,)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_moves_the_clock_to_the_first_that_is_ready() {
        let mut world = VirtualWorld::new(0);
        let late = world.pollable(5_000_000).expect("few");
        let soon = world.pollable(3_000_000).expect("few");
        assert_eq!(world.poll(&[late, soon]), [1]);
        assert_eq!(world.monotonic_ns, 3_000_000);
    }

    #[test]
    fn a_guest_that_waits_by_reading_the_clock_comes_to_an_end() {
        let mut world = VirtualWorld::new(0);
        let first = world.read_monotonic();
        assert!(world.read_monotonic() > first);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = |seed: u64| VirtualWorld::new(seed).random.bytes(13);
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        assert_eq!(bytes(1).len(), 13);
    }

    #[test]
    fn written_bytes_become_lines() {
        let mut buffer = LineBuffer::default();
        assert_eq!(buffer.write(b"one\ntw"), ["one"]);
        assert_eq!(buffer.write(b"o\n\nthree"), ["two"]);
        assert_eq!(buffer.take().as_deref(), Some("three"));
        assert_eq!(buffer.write(&[b'x'; 20_000]).len(), 2);
    }
}
