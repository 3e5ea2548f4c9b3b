use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver as Channel, channel};
use std::time::Duration;

use super::outbox::CAPACITY;
use super::*;

/// How long a test waits for what must happen at once.
const DEADLINE: Duration = Duration::from_secs(60);

fn open(target: &Target) -> Terminal {
    Terminal::open(target, || {}).unwrap()
}

fn attach(terminal: &Terminal) -> Channel<Vec<u8>> {
    let (sender, receiver) = channel();
    terminal.attach(move |bytes| sender.send(bytes.to_vec()).unwrap());
    receiver
}

fn expect_input(channel: &Channel<Vec<u8>>, expected: &[u8]) {
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(channel.recv_timeout(DEADLINE).unwrap());
    }
    assert_eq!(seen, expected);
}

fn expect_output(mut reader: impl Read, expected: &[u8]) {
    let mut seen = vec![0; expected.len()];
    reader.read_exact(&mut seen).unwrap();
    assert_eq!(seen, expected);
}

#[test]
fn targets_are_named_as_in_the_configuration() {
    for (text, target) in [
        ("stdio", Target::Stdio),
        ("file:a/b:c", Target::File("a/b:c".into())),
        ("socket:/run/s", Target::Socket("/run/s".into())),
        ("pty", Target::Pty),
        ("null", Target::Null),
    ] {
        assert_eq!(target.to_string(), text);
        assert_eq!(text.parse(), Ok(target));
    }
    for text in ["", "file:", "socket", "tcp:1", "Stdio"] {
        assert_eq!(text.parse::<Target>(), Err(UnknownTarget(text.into())));
    }
}

#[test]
fn a_file_holds_all_output_once_the_terminal_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console.log");
    std::fs::write(&path, "from an earlier run").unwrap();
    let terminal = open(&Target::File(path.clone()));
    let text = b"0123456789abcdef".repeat(4096);
    terminal.writer().write_all(&text).unwrap();
    drop(terminal);
    assert_eq!(std::fs::read(path).unwrap(), text);
}

#[test]
fn a_file_that_cannot_be_made_is_named() {
    let target = Target::File("/nonexistent/console.log".into());
    let message = Terminal::open(&target, || {}).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/console.log"), "{message}");
}

#[test]
fn a_socket_client_reads_what_was_said_before_it_came() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    let terminal = open(&Target::Socket(path.clone()));
    assert_eq!(terminal.path(), Some(&*path));
    let input = attach(&terminal);
    terminal.writer().write_all(b"boot log").unwrap();

    let mut client = UnixStream::connect(&path).unwrap();
    expect_output(&client, b"boot log");
    client.write_all(b"ls\n").unwrap();
    expect_input(&input, b"ls\n");
}

#[test]
fn a_socket_takes_one_client_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    let terminal = open(&Target::Socket(path.clone()));
    let input = attach(&terminal);
    for _ in 0..3 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"hello").unwrap();
        expect_input(&input, b"hello");
        terminal.writer().write_all(b"welcome").unwrap();
        expect_output(&client, b"welcome");
    }
}

#[test]
fn a_socket_left_over_from_a_killed_run_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    drop(UnixListener::bind(&path).unwrap());
    let terminal = open(&Target::Socket(path.clone()));
    let error = Terminal::open(&Target::Socket(path.clone()), || {}).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(terminal);
}

#[test]
fn a_pseudo_terminal_passes_bytes_both_ways() {
    let terminal = open(&Target::Pty);
    let input = attach(&terminal);
    let path = terminal.path().unwrap().to_owned();
    let mut user = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    user.write_all(b"\x03\x01x").unwrap();
    expect_input(&input, b"\x03\x01x");
    terminal.writer().write_all(b"login: ").unwrap();
    expect_output(&user, b"login: ");
}

#[test]
fn a_reader_that_never_reads_loses_the_oldest_output_and_blocks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let terminal = open(&Target::Socket(directory.path().join("console")));
    let mut writer = terminal.writer();
    writer.write_all(&vec![b'a'; CAPACITY]).unwrap();
    writer.write_all(b"the end").unwrap();
    let waiting = terminal.outbox.waiting();
    assert_eq!(waiting.len(), CAPACITY);
    assert!(waiting.ends_with(b"aaathe end"));
}

#[test]
fn nothing_swallows_everything() {
    let terminal = open(&Target::Null);
    terminal.writer().write_all(b"hello").unwrap();
    assert!(terminal.outbox.waiting().is_empty());
}

#[test]
fn raw_mode_keeps_output_readable_and_is_taken_back() {
    let pty = open(&Target::Pty);
    let user = File::open(pty.path().unwrap()).unwrap();
    let fd = OwnedFd::from(user.try_clone().unwrap());
    let mut cooked = rustix::termios::tcgetattr(&user).unwrap();
    cooked.local_modes |= rustix::termios::LocalModes::ECHO;
    rustix::termios::tcsetattr(&user, rustix::termios::OptionalActions::Now, &cooked).unwrap();
    let echoes = || {
        let modes = rustix::termios::tcgetattr(&user).unwrap();
        modes
            .local_modes
            .contains(rustix::termios::LocalModes::ECHO)
    };

    let raw = RawMode::enter(&fd).unwrap();
    assert!(!echoes());
    drop(raw);
    assert!(echoes());
    let _raw = RawMode::enter(&fd).unwrap();
    restore();
    assert!(echoes());
}
