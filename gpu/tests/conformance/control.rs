//! Branches, divergence, calls, barriers, and how kernels end.

use std::time::Duration;

use gpu::Fault;
use gpu::ptx::{Module, Tier};

use super::common::{Device, integers};
use super::warp::threads;
use super::{HEADER, run32};

#[test]
fn lanes_leave_a_loop_one_by_one() {
    let body = "mov.u32 %r1, 0; $loop: setp.ge.u32 %p1, %r1, %l; @%p1 bra $done; add.u32 %o, %o, %r1;
                add.u32 %r1, %r1, 1; bra $loop; $done: activemask.b32 %r2; setp.ne.u32 %p2, %r2, -1; @%p2 mov.u32 %o, 9999;";
    let expected: Vec<u32> = (0..32)
        .map(|lane: u32| lane * lane.saturating_sub(1) / 2)
        .collect();
    assert_eq!(threads(body, 32), expected);
}

#[test]
fn nested_branches_rejoin_inside_out() {
    let body =
        "and.b32 %r1, %l, 1; setp.ne.u32 %p1, %r1, 0; and.b32 %r2, %l, 2; setp.ne.u32 %p2, %r2, 0;
                @%p1 bra $odd; @%p2 bra $two; add.u32 %o, %o, 1; bra $even; $two: add.u32 %o, %o, 2;
                $even: activemask.b32 %r3; popc.b32 %r3, %r3; mad.lo.u32 %o, %r3, 10, %o; bra $end;
                $odd: activemask.b32 %r3; popc.b32 %r3, %r3; mul.lo.u32 %o, %r3, 100;
                $end: activemask.b32 %r3; popc.b32 %r3, %r3; mad.lo.u32 %o, %r3, 10000, %o;";
    let expected: Vec<u32> = (0..32)
        .map(|lane| {
            320_000
                + if lane & 1 == 1 {
                    1600
                } else {
                    160 + 1 + (lane >> 1 & 1)
                }
        })
        .collect();
    assert_eq!(threads(body, 32), expected);
}

#[test]
fn a_branch_by_index_goes_to_its_list() {
    let body = "and.b32 %r1, %l, 3; ts: .branchtargets $a, $b, $c, $d; brx.idx %r1, ts;
                $a: add.u32 %o, %o, 1; $b: add.u32 %o, %o, 10; bra $end; $c: add.u32 %o, %o, 100; $d: add.u32 %o, %o, 1000; $end:";
    let by_index = [11, 10, 1100, 1000];
    let expected: Vec<u32> = (0..32).map(|lane| by_index[lane % 4]).collect();
    assert_eq!(threads(body, 32), expected);
}

#[test]
fn a_lock_between_lanes_of_one_warp_is_passed_on() {
    // The lane with the lock waits where the loop ends for those that wait for the lock: nobody may starve.
    let body = ".shared .u32 lock; .shared .u32 count; setp.ne.u32 %p1, %t, 0; @!%p1 st.shared.u32 [lock], 0;
                @!%p1 st.shared.u32 [count], 0; bar.sync 0;
                $spin: atom.shared.cas.b32 %r1, [lock], 0, 1; setp.ne.u32 %p2, %r1, 0; @%p2 bra $spin;
                ld.shared.u32 %r2, [count]; add.u32 %r2, %r2, 1; st.shared.u32 [count], %r2; atom.shared.exch.b32 %r3, [lock], 0;
                bar.sync 0; ld.shared.u32 %o, [count];";
    assert_eq!(threads(body, 40), vec![40; 40]);
}

#[test]
fn functions_call_each_other_and_themselves() {
    let text = format!(
        "{HEADER}.func (.param .b32 r) factorial(.param .b32 n) {{ .reg .b32 %r<4>; .reg .pred %p; .local .u32 mine;
           ld.param.b32 %r1, [n]; st.local.u32 [mine], %r1; mov.u32 %r2, 1; setp.le.u32 %p, %r1, 1; @%p bra $done;
           sub.u32 %r1, %r1, 1;
           {{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r1; call.uni (b), factorial, (a); ld.param.b32 %r2, [b]; }}
           ld.local.u32 %r3, [mine]; mul.lo.u32 %r2, %r2, %r3;
           $done: st.param.b32 [r], %r2; ret; }}
         .entry k(.param .u64 out) {{ .reg .b32 %r<4>; .reg .b64 %rd<3>;
           mov.u32 %r1, %tid.x; {{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r1; call (b), factorial, (a); ld.param.b32 %r2, [b]; }}
           ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r2; ret; }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        let out = device.buffer(40);
        device.launch(&kernel, [1, 1, 1], [10, 1, 1], 0, &[out]);
        assert_eq!(
            integers(&device, out, 10),
            [1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362_880]
        );
    }
}

#[test]
fn lanes_may_call_different_functions() {
    let text = format!(
        "{HEADER}.func (.reg .b32 %r) one(.reg .b32 %a) {{ add.u32 %r, %a, 1; ret; }}
         .func (.reg .b32 %r) two(.reg .b32 %a) {{ add.u32 %r, %a, 200; ret; }}
         .entry k(.param .u64 out) {{ .reg .b32 %r<4>; .reg .b64 %rd<6>; .reg .pred %p;
           mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 1; setp.ne.u32 %p, %r2, 0; mov.u64 %rd3, one; mov.u64 %rd4, two;
           selp.b64 %rd5, %rd3, %rd4, %p; call (%r3), %rd5, (%r1), proto;
           ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r3; ret;
           proto: .callprototype (.reg .b32 _) _ (.reg .b32 _); }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        let out = device.buffer(24);
        device.launch(&kernel, [1, 1, 1], [6, 1, 1], 0, &[out]);
        assert_eq!(integers(&device, out, 6), [200, 2, 202, 4, 204, 6]);
    }
}

#[test]
fn barriers_count_threads_and_reduce_predicates() {
    let odd = "and.b32 %r1, %t, 1; setp.ne.u32 %p1, %r1, 0;";
    assert_eq!(
        threads(&format!("{odd} bar.red.popc.u32 %o, 0, %p1;"), 70),
        vec![35; 70]
    );
    let or = format!("{odd} bar.red.or.pred %p2, 1, %p1; selp.u32 %o, 1, 0, %p2;");
    assert_eq!(threads(&or, 70), vec![1; 70]);
    let and = format!("{odd} barrier.red.and.pred %p2, 1, !%p1; selp.u32 %o, 1, 0, %p2;");
    assert_eq!(threads(&and, 70), vec![0; 70]);
    // The first warp produces, the second waits for it at a barrier of 64 threads.
    let pair = ".shared .u32 s; setp.lt.u32 %p1, %t, 32; @!%p1 bra $wait; mov.u32 %r1, 5; st.shared.u32 [s], %r1; bar.arrive 3, 64;
                bra $end; $wait: bar.sync 3, 64; ld.shared.u32 %o, [s]; $end:";
    let mut expected = vec![0; 32];
    expected.extend([5; 32]);
    assert_eq!(threads(pair, 64), expected);
}

#[test]
fn exited_threads_are_not_waited_for() {
    let text = format!(
        "{HEADER}.entry k(.param .u64 out) {{ .reg .b64 %rd; .reg .b32 %r<3>; .reg .pred %p<3>; ld.param.u64 %rd, [out];
           mov.u32 %r1, %tid.x; setp.gt.u32 %p1, %r1, 40; @%p1 exit; bar.sync 0; red.global.add.u32 [%rd], 1; ret; }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        let out = device.buffer(4);
        device.launch(&kernel, [3, 1, 1], [64, 1, 1], 0, &[out]);
        assert_eq!(integers(&device, out, 1), [123]);
    }
}

/// The watchdog of a kernel that ends by itself, and of one that does not.
const PATIENT: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn fault(body: &str, block: u32) -> (u32, Fault, u32) {
    fault_within(PATIENT, body, block)
}

fn fault_within(watchdog: Duration, body: &str, block: u32) -> (u32, Fault, u32) {
    let text = format!(
        "{HEADER}.entry k() {{ .reg .b64 %rd<4>; .reg .b32 %r<4>; .reg .pred %p<4>; mov.u32 %r1, %tid.x;\n{body}\nret; }}"
    );
    let [interpreted, compiled] = [Tier::Interpreter, Tier::Compiler].map(|tier| {
        let device = Device::with_watchdog(watchdog, tier);
        let kernel = device.kernel(&text, "k");
        match device.launch_bytes(&kernel, [2, 1, 1], [block, 1, 1], 0, &[]) {
            Err(error @ gpu::Error::Fault { .. }) => {
                let code = error.code();
                let gpu::Error::Fault { fault, line, .. } = error else {
                    unreachable!()
                };
                (code, fault, line)
            }
            other => panic!("{other:?}"),
        }
    });
    // Of threads that wait for ever any may be named.
    let same_line = interpreted.2 == compiled.2 || compiled.1 == Fault::Deadlock;
    assert!(same_line, "{body}: {interpreted:?} {compiled:?}");
    assert_eq!((interpreted.0, &interpreted.1), (compiled.0, &compiled.1));
    compiled
}

#[test]
fn faults_have_cudas_numbers_and_the_line() {
    assert_eq!(fault("trap;", 1), (719, Fault::Trap, 5));
    let (code, _, line) = fault("\nmov.u64 %rd1, 0; ld.global.u32 %r2, [%rd1];", 1);
    assert_eq!((code, line), (700, 6));
    assert_eq!(
        fault("mov.u64 %rd1, 2; ld.shared.u32 %r2, [%rd1];", 1).0,
        716
    );
    let vector = ".shared .align 16 .b8 s[32]; ld.shared.v2.u32 {%r2, %r3}, [s+4];";
    assert_eq!(fault(vector, 1).0, 716);
    assert_eq!(
        fault("mov.u64 %rd1, 4096; st.local.u32 [%rd1], %r2;", 1).0,
        700
    );
    assert_eq!(
        fault("mov.u64 %rd1, 0xffffffffffffffff; st.u8 [%rd1], %r2;", 1).0,
        700
    );
    assert_eq!(fault(".local .u32 l; mov.u64 %rd1, l; cvta.local.u64 %rd1, %rd1; atom.add.u32 %r2, [%rd1], 1;", 1).0, 717);
    assert_eq!(
        fault("mov.u64 %rd1, 64; call %rd1, p; p: .callprototype _ ();", 1).0,
        718
    );
    assert_eq!(fault("bar.sync 16;", 1).0, 715);
}

#[test]
fn an_endless_kernel_is_ended_by_the_watchdog() {
    assert_eq!(fault_within(SHORT, "$loop: bra $loop;", 33).0, 702);
    assert_eq!(
        fault_within(
            SHORT,
            "$loop: add.u32 %r2, %r2, 1; setp.ne.u32 %p1, %r1, 99; @%p1 bra $loop;",
            64
        )
        .0,
        702
    );
    // Threads that wait for each other for ever are found without the watchdog.
    let (code, fault, _) = fault(
        "setp.lt.u32 %p1, %r1, 32; @%p1 bra $a; bar.sync 1; bra $b; $a: bar.sync 2; $b:",
        64,
    );
    assert_eq!((code, fault), (702, Fault::Deadlock));
}

#[test]
fn endless_recursion_runs_out_of_stack() {
    let text = format!("{HEADER}.func f() {{ call f; ret; }} .entry k() {{ call f; ret; }}");
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        let error = device
            .launch_bytes(&kernel, [1, 1, 1], [1, 1, 1], 0, &[])
            .unwrap_err();
        assert_eq!(error.code(), 719);
    }
}

#[test]
fn printf_writes_to_the_contexts_output() {
    let text = format!(
        "{HEADER}.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
         .global .align 1 .b8 format[14] = {{116, 37, 100, 32, 37, 46, 49, 102, 32, 37, 115, 10, 0}};
         .global .align 1 .b8 text[3] = {{104, 105, 0}};
         .entry k() {{ .local .align 8 .b8 args[24]; .reg .b64 %rd<6>; .reg .b32 %r<3>;
           mov.u32 %r1, %tid.x; mov.u64 %rd1, args; cvta.local.u64 %rd2, %rd1; st.local.u32 [args], %r1; st.local.f64 [args+8], 0d3FF8000000000000;
           mov.u64 %rd3, text; cvta.global.u64 %rd3, %rd3; st.local.u64 [args+16], %rd3; mov.u64 %rd4, format; cvta.global.u64 %rd4, %rd4;
           {{ .param .b64 p0; .param .b64 p1; .param .b32 r0; st.param.b64 [p0], %rd4; st.param.b64 [p1], %rd2;
             call.uni (r0), vprintf, (p0, p1); ld.param.b32 %r2, [r0]; }} ret; }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        device.launch(&kernel, [1, 1, 1], [2, 1, 1], 0, &[]);
        assert_eq!(
            String::from_utf8(device.context.take_output()).unwrap(),
            "t0 1.5 hi\nt1 1.5 hi\n"
        );
        assert!(device.context.take_output().is_empty());
    }
}

#[test]
fn attributes_and_limits_follow_the_directives() {
    let text = format!(
        "{HEADER}.shared .align 16 .b8 mine[100]; .shared .b8 other[5000]; .extern .shared .align 128 .b8 dyn[];
         .entry k(.param .u8 a, .param .align 8 .b8 b[12], .param .u16 c) .reqntid 32, 2 {{ .reg .b32 %r<2>; .local .b8 l[40];
           mov.u32 %r1, mine; mov.u32 %r1, dyn; ret; }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        assert_eq!(kernel.params(), [(0, 1), (8, 12), (20, 2)]);
        let attributes = kernel.attributes();
        assert_eq!(
            (attributes.shared_bytes, attributes.max_threads_per_block),
            (100, 64)
        );
        assert!(attributes.local_bytes >= 40);
        let launch =
            |block, shared| device.launch_bytes(&kernel, [1, 1, 1], block, shared, &[0; 24]);
        assert_eq!(launch([32, 2, 1], 1024), Ok(()));
        assert_eq!(launch([64, 1, 1], 0).unwrap_err().code(), 1);
        assert_eq!(launch([32, 2, 1], 1 << 16).unwrap_err().code(), 701);
        assert_eq!(launch([0, 2, 1], 0).unwrap_err().code(), 1);
        assert_eq!(launch([1025, 1, 1], 0).unwrap_err().code(), 1);
        let module = Module::load(&device.context, &text).unwrap();
        assert_eq!(module.function("missing").unwrap_err().code(), 500);
        assert_eq!(module.global("mine").unwrap_err().code(), 500);
    }
}

#[test]
fn guards_leave_other_lanes_alone() {
    assert_eq!(
        run32(
            "mov.u32 %o0, 1; setp.eq.u32 %p1, %r1, 0; @%p1 mov.u32 %o0, 2; @!%p1 add.u32 %o0, %o0, 10;",
            &[5]
        ),
        11
    );
}
