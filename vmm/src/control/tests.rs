//! The server on a real socket, with a machine that only remembers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use cxl::coherence::{Event, Message, Side, What};
use tempfile::TempDir;

use super::*;

/// What was asked of the machine, in order.
#[derive(Debug, Default)]
struct Fake(Mutex<Vec<String>>);

impl Fake {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Backend for Fake {
    fn state(&self) -> Result<State, Failure> {
        let paused = self.asked().iter().any(|asked| asked == "pause");
        Ok(State {
            state: if paused {
                RunState::Paused
            } else {
                RunState::Running
            },
            vcpus: 2,
            memory: 1 << 30,
            hypervisor_bit: true,
            pid: 7,
        })
    }

    fn tree(&self) -> Result<Tree, Failure> {
        Ok(Tree::default())
    }

    fn memslots(&self) -> Result<Vec<Memslot>, Failure> {
        Ok(vec![Memslot {
            slot: 0,
            name: "ram".to_string(),
            hpa: 0,
            size: 1 << 30,
            offset: 0,
            read_only: false,
        }])
    }

    fn exits(&self) -> Result<Exits, Failure> {
        Ok(Exits {
            total: 3,
            causes: BTreeMap::from([("mmio_read".to_string(), 3)]),
            devices: BTreeMap::from([("mem0".to_string(), 3)]),
        })
    }

    fn timing(&self) -> Result<Timing, Failure> {
        Ok(Timing {
            clock: "real".to_string(),
            ..Timing::default()
        })
    }

    fn gpu(&self) -> Result<Vec<Gpu>, Failure> {
        Ok(Vec::new())
    }

    fn gpu_trace(
        &self,
        device: &str,
        from: u64,
        most: u64,
    ) -> Result<(GpuTrace, Vec<Event>), Failure> {
        let trace = GpuTrace {
            device: device.to_string(),
            memory: 1 << 30,
            granule: 64,
            cache: Some((1024, 16)),
            snoop_filter: None,
            first: 3,
            next: 9,
            counters: BTreeMap::from([("host_reads".to_string(), 2)]),
        };
        let event = |number| Event {
            number,
            by: Side::Host,
            what: What::Message(Message::MemRd),
            line: 4096,
            before: Default::default(),
            after: Default::default(),
        };
        Ok((trace, (from..9).take(most as usize).map(event).collect()))
    }

    fn media(&self, device: &str, dpa: u64, length: u64) -> Result<Vec<u8>, Failure> {
        if device != "mem0" {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!("there is no device {device}"),
                "there is mem0",
            ));
        }
        Ok((dpa..dpa + length).map(|dpa| dpa as u8).collect())
    }

    fn pause(&self) -> Result<(), Failure> {
        self.note("pause");
        Ok(())
    }

    fn resume(&self) -> Result<(), Failure> {
        Err(Failure::new(
            FailureKind::Conflict,
            "the machine is not paused",
            "pause it first",
        ))
    }

    fn power_button(&self) -> Result<(), Failure> {
        self.note("power-button");
        Ok(())
    }

    fn add_device(&self, request: AddDevice) -> Result<(), Failure> {
        self.note(format!(
            "add {} to {}",
            request.device["name"], request.port
        ));
        Ok(())
    }

    fn remove_device(&self, device: &str, removal: Removal) -> Result<(), Failure> {
        self.note(format!("remove {device}: {removal:?}"));
        Ok(())
    }

    fn change_extents(&self, request: &ChangeExtents) -> Result<(), Failure> {
        self.note(format!("{request:?}"));
        Ok(())
    }

    fn inject(&self, request: &Inject) -> Result<(), Failure> {
        self.note(format!("{request:?}"));
        Ok(())
    }

    fn quit(&self) {
        self.note("quit");
    }
}

/// A served machine.
struct Served {
    directory: TempDir,
    machine: Arc<Fake>,
    server: Option<Server>,
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Arc::new(Fake::default());
        let path = directory.path().join("control.sock");
        let server = Server::start(&path, Arc::clone(&machine) as Arc<dyn Backend>).unwrap();
        Self {
            directory,
            machine,
            server: Some(server),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.path()).unwrap())
    }

    fn ask(&self, method: &str, target: &str) -> Result<Answer, ClientError> {
        Client::new(&self.path()).request(method, target, "")
    }

    fn stop(&mut self) {
        self.server = None;
    }
}

/// Sends `text` and reads one answer: its head and its body.
fn exchange(connection: &mut BufReader<UnixStream>, text: &str) -> (String, String) {
    connection.get_mut().write_all(text.as_bytes()).unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(
            connection.read_line(&mut head).unwrap(),
            0,
            "no answer to {text:?}"
        );
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn every_get_answers_with_its_json() {
    let served = Served::new();
    let table = [
        (
            "/v1/state",
            r#"{"state":"running","vcpus":2,"memory":1073741824,"hypervisor_bit":true,"pid":7}"#,
        ),
        (
            "/v1/tree",
            r#"{"functions":[],"host_bridges":[],"windows":[]}"#,
        ),
        (
            "/v1/memslots",
            r#"[{"slot":0,"name":"ram","hpa":0,"size":1073741824,"offset":0,"read_only":false}]"#,
        ),
        (
            "/v1/exits",
            r#"{"total":3,"causes":{"mmio_read":3},"devices":{"mem0":3}}"#,
        ),
        (
            "/v1/media?device=mem0&dpa=0xfe&length=4",
            r#"{"device":"mem0","dpa":254,"data":"feff0001"}"#,
        ),
    ];
    for (target, body) in table {
        assert_eq!(
            served.ask("GET", target).unwrap().body.trim_end(),
            body,
            "{target}"
        );
    }
}

#[test]
fn a_trace_is_lines_of_json_and_has_bounds() {
    let served = Served::new();
    let ask = |query: &str| served.ask("GET", &format!("/v1/gpu/trace?{query}"));
    let body = ask("device=gpu0&from=0x4&most=2").unwrap().body;
    let lines: Vec<&str> = body.lines().collect();
    let expected = [
        r#"{"device":"gpu0","memory":1073741824,"granule":64,"cache":[1024,16],"snoop_filter":null,"first":3,"next":9,"counters":{"host_reads":2}}"#,
        r#"{"number":4,"by":"host","what":"MemRd","line":4096,"before":["I","I"],"after":["I","I"]}"#,
        r#"{"number":5,"by":"host","what":"MemRd","line":4096,"before":["I","I"],"after":["I","I"]}"#,
    ];
    assert_eq!(lines, expected);
    assert_eq!(ask("device=gpu0").unwrap().body.lines().count(), 10);
    for (query, said) in [
        ("from=0", "device is missing"),
        ("device=gpu0&from=x", "from=x is not a number"),
        ("device=gpu0&most=10001", "10001 steps are too many"),
    ] {
        let refused = ask(query).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn every_put_reaches_the_machine_and_answers_with_nothing() {
    let served = Served::new();
    for target in ["/v1/pause", "/v1/power-button"] {
        assert_eq!(served.ask("PUT", target).unwrap().body, "");
    }
    assert_eq!(served.machine.asked(), ["pause", "power-button"]);
    assert!(
        served
            .ask("GET", "/v1/state")
            .unwrap()
            .body
            .contains(r#""state":"paused""#)
    );
}

#[test]
fn devices_are_added_by_their_table_and_removed_by_name() {
    let served = Served::new();
    let client = Client::new(&served.path());
    let body = r#"{"port": "rp1", "device": {"type": "type3", "name": "mem1", "serial": 2}}"#;
    client.request("PUT", "/v1/add", body).unwrap();
    for target in [
        "/v1/remove?device=mem1",
        "/v1/remove?device=mem1&surprise=true",
    ] {
        client.request("PUT", target, "").unwrap();
    }
    assert_eq!(
        served.machine.asked(),
        [
            "add \"mem1\" to rp1",
            "remove mem1: Orderly",
            "remove mem1: Surprise"
        ]
    );
    for body in [
        "",
        "{}",
        r#"{"port": "rp1"}"#,
        r#"{"port": 1, "device": {}}"#,
    ] {
        let refused = client.request("PUT", "/v1/add", body).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("does not name a port and a device"), "{said}");
    }
}

#[test]
fn extents_reach_the_machine() {
    let served = Served::new();
    let client = Client::new(&served.path());
    let body = r#"{"device": "mem0", "change": {"add": [{"dpa": 4096, "length": 8192}]}}"#;
    client.request("PUT", "/v1/extents", body).unwrap();
    let expected = ChangeExtents {
        device: "mem0".to_string(),
        change: ExtentChange::Add(vec![Extent {
            dpa: 4096,
            length: 8192,
            tag: String::new(),
        }]),
    };
    assert_eq!(served.machine.asked(), [format!("{expected:?}")]);
    for body in [
        "",
        r#"{"device": "mem0"}"#,
        r#"{"device": "mem0", "change": {"add": {}}}"#,
    ] {
        let refused = client.request("PUT", "/v1/extents", body).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("does not say what is to change"), "{said}");
    }
}

#[test]
fn what_is_to_go_wrong_reaches_the_machine() {
    let served = Served::new();
    let client = Client::new(&served.path());
    let body = r#"{"target": "mem0", "what": {"uncorrectable": {"error": "internal"}}}"#;
    client.request("PUT", "/v1/inject", body).unwrap();
    let expected = Inject {
        target: "mem0".to_string(),
        what: Injection::Uncorrectable {
            error: "internal".to_string(),
            header: Vec::new(),
        },
    };
    assert_eq!(served.machine.asked(), [format!("{expected:?}")]);
    for body in [
        "",
        "{}",
        r#"{"target": "mem0", "what": "rain"}"#,
        r#"{"target": "mem0", "what": {"poison": {"dpa": -1, "length": 64}}}"#,
    ] {
        let refused = client.request("PUT", "/v1/inject", body).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("does not say what is to go wrong"), "{said}");
    }
}

#[test]
fn quit_is_answered_before_the_machine_ends() {
    let mut served = Served::new();
    let mut connection = served.connect();
    let (head, _) = exchange(&mut connection, "PUT /v1/quit HTTP/1.1\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 204 No Content\r\nConnection: close\r\n"),
        "{head}"
    );
    served.stop();
    assert_eq!(served.machine.asked(), ["quit"]);
}

#[test]
fn what_the_machine_refuses_is_passed_on() {
    let served = Served::new();
    let refusal = served.ask("PUT", "/v1/resume").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the machine is not paused; pause it first"
    );
    let (head, body) = exchange(&mut served.connect(), "PUT /v1/resume HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 409 Conflict\r\n"), "{head}");
    assert_eq!(
        body,
        "{\"message\":\"the machine is not paused\",\"mend\":\"pause it first\"}\n"
    );
}

#[test]
fn wrong_requests_get_the_right_status_and_a_mend() {
    let served = Served::new();
    let table = [
        ("GET /v1/stat", 404, "there is no /v1/stat"),
        ("PUT /v1/state", 405, "/v1/state does not take PUT"),
        ("GET /v1/pause", 405, "/v1/pause does not take GET"),
        ("GET /v1/media?device=mem0&dpa=0", 400, "length is missing"),
        (
            "GET /v1/media?device=mem0&dpa=x&length=1",
            400,
            "dpa=x is not a number",
        ),
        (
            "GET /v1/media?device=mem0&dpa=0&length=1048577",
            400,
            "1048577 bytes are too many",
        ),
        (
            "GET /v1/media?device=mem1&dpa=0&length=1",
            404,
            "there is no device mem1",
        ),
        ("PUT /v1/remove", 400, "device is missing"),
        (
            "PUT /v1/remove?device=mem0&surprise=1",
            400,
            "surprise=1 is neither true nor false",
        ),
        ("GET /v1/state HTTP/9", 400, "the request is not HTTP/1.1"),
    ];
    for (request, status, message) in table {
        let (head, body) = exchange(
            &mut served.connect(),
            &format!("{request} HTTP/1.1\r\n\r\n"),
        );
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {head}"
        );
        let failure: Failure = serde_json::from_str(&body).unwrap();
        assert_eq!(failure.message, message);
        assert!(!failure.mend.is_empty(), "{request}");
    }
    let (head, _) = exchange(&mut served.connect(), "DELETE /v1/quit HTTP/1.1\r\n\r\n");
    assert!(head.contains("\r\nAllow: PUT\r\n"), "{head}");
    assert_eq!(served.machine.asked(), Vec::<String>::new());
}

#[test]
fn a_connection_serves_many_requests() {
    let served = Served::new();
    let mut connection = served.connect();
    for _ in 0..100 {
        let (head, body) = exchange(&mut connection, "GET /v1/exits HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.contains("Connection: keep-alive\r\n"), "{head}");
        assert!(body.contains("\"total\":3"), "{body}");
    }
}

#[test]
fn clients_are_served_side_by_side() {
    let served = Served::new();
    // One that has said half a sentence must not hold up the others.
    let mut slow = served.connect();
    slow.get_mut().write_all(b"GET /v1/sta").unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| served.ask("GET", "/v1/state").unwrap());
        }
    });
    let (head, _) = exchange(&mut slow, "te HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn one_client_too_many_is_told_so() {
    let served = Served::new();
    let mut clients: Vec<_> = (0..16).map(|_| served.connect()).collect();
    for client in &mut clients {
        exchange(client, "GET /v1/state HTTP/1.1\r\n\r\n");
    }
    let mut answer = String::new();
    served.connect().read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
}

#[test]
fn the_socket_is_for_this_user_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt;
    let mut served = Served::new();
    let mode = fs::metadata(served.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut idle = served.connect();
    exchange(&mut idle, "GET /v1/state HTTP/1.1\r\n\r\n");
    served.stop();
    assert!(!served.path().exists());
    assert_eq!(
        idle.read(&mut [0]).unwrap(),
        0,
        "the conversation has ended"
    );
}

#[test]
fn a_socket_that_a_dead_process_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::start(&path, Arc::new(Fake::default())).unwrap();
    Client::new(&path).request("GET", "/v1/state", "").unwrap();
    drop(server);
}

#[test]
fn a_socket_in_use_is_left_alone() {
    let served = Served::new();
    let error = Server::start(&served.path(), Arc::new(Fake::default())).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on the control socket {}: a running machine listens there; end it or choose another path",
            served.path().display()
        )
    );
    served.ask("GET", "/v1/state").unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "kept").unwrap();
    let error = Server::start(&path, Arc::new(Fake::default()))
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("there is a file that is no socket; remove it or choose another path"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[test]
fn a_client_without_a_machine_says_so() {
    let error = Client::new("/absent.sock".as_ref())
        .request("GET", "/v1/state", "")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no machine listens on /absent.sock: No such file or directory (os error 2); give the path that its \
         configuration has as [control] socket"
    );
}
