//! The tables in the hands of ACPICA, the interpreter that Linux has inside: `iasl` takes every table apart and makes it
//! again, `acpiexec` runs the methods. Without these tools (package acpica-tools) the tests say so and do nothing.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::acpi::{self, Bytes};
use crate::machines::{cxl_machine, plain_machine};
use firmware::{Machine, build};

/// Table header fields that the compiler fills in anew: checksum, compiler and its version.
const COMPILER_OWN: [std::ops::Range<usize>; 2] = [9..10, 28..36];

/// Runs a tool; its output, or `None` if it is not installed.
fn run(tool: &str, dir: &Path, arguments: &[&str]) -> Option<String> {
    match Command::new(tool).current_dir(dir).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&text).into_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skipped(&format!("{tool} is not installed (package acpica-tools)"));
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

/// Says so past the test harness, which keeps what a passing test prints.
fn skipped(why: &str) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "SKIPPED: {why}").unwrap();
}

fn without_compiler_fields(table: &Bytes, signature: &str) -> Vec<u8> {
    let mut bytes = table.0.clone();
    // FACS has no common header.
    if signature != "FACS" {
        COMPILER_OWN
            .into_iter()
            .flatten()
            .for_each(|offset| bytes[offset] = 0);
    }
    bytes
}

/// Disassembles and compiles each table; what comes out must be what went in, without a word from iasl. Returns the
/// signatures that this iasl does not know (in full), `None` without iasl.
fn round_trip(machine: &Machine) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let mut unknown = Vec::new();
    for (signature, table) in acpi::tables(&build(machine).unwrap()) {
        let file = |extension: &str| dir.path().join(format!("{signature}.{extension}"));
        fs::write(file("aml"), &table.0).unwrap();
        let disassembly = run("iasl", dir.path(), &["-d", &format!("{signature}.aml")])?;
        let source = fs::read_to_string(file("dsl")).unwrap();
        if source.contains("**** Unknown") {
            skipped(&format!("this iasl cannot read all of {signature}"));
            unknown.push(signature);
            continue;
        }
        for complaint in ["Error", "Warning", "Invalid", "Could not"] {
            assert!(
                !disassembly.contains(complaint),
                "{signature}: {disassembly}"
            );
        }
        // No optimisation, so that the bytes can be compared.
        let compilation = run("iasl", dir.path(), &["-oa", &format!("{signature}.dsl")])?;
        assert!(
            compilation.contains("0 Errors, 0 Warnings, 0 Remarks"),
            "{signature}: {compilation}"
        );
        let again = Bytes(fs::read(file("aml")).unwrap());
        assert_eq!(
            without_compiler_fields(&again, &signature),
            without_compiler_fields(&table, &signature),
            "{signature}"
        );
    }
    Some(unknown)
}

#[test]
fn iasl_takes_apart_and_remakes_every_table_of_a_plain_machine() {
    if let Some(unknown) = round_trip(&plain_machine()) {
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

#[test]
fn iasl_takes_apart_and_remakes_the_tables_of_a_cxl_machine() {
    if let Some(unknown) = round_trip(&cxl_machine()) {
        // Old ones know neither CEDT nor SRAT's generic ports.
        assert!(
            unknown
                .iter()
                .all(|signature| ["CEDT", "SRAT"].contains(&signature.as_str())),
            "{unknown:?}"
        );
    }
}

/// Evaluates an object of a machine's DSDT once for each of the given arguments, which are in
/// acpiexec's notation: numbers are hexadecimal, but decimal in a package. Returns what it printed
/// about each result. One run does them all, because acpiexec takes a second to end.
fn evaluate(
    machine: &Machine,
    object: &str,
    arguments: impl Iterator<Item = String>,
) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let tables = acpi::tables(&build(machine).unwrap());
    fs::write(dir.path().join("DSDT.aml"), &tables["DSDT"].0).unwrap();
    let commands: Vec<String> = arguments
        .map(|arguments| format!("evaluate {object} {arguments}"))
        .collect();
    let output = run(
        "acpiexec",
        dir.path(),
        &["-b", &commands.join(";"), "DSDT.aml"],
    )?;
    let results: Vec<String> = output
        .split("returned object")
        .skip(1)
        .map(str::to_owned)
        .collect();
    assert_eq!(results.len(), commands.len(), "{output}");
    Some(results)
}

/// A UUID as bytes in a buffer argument (ACPI 6.5 section 19.6.142: the first three groups are little-endian).
fn uuid(text: &str) -> String {
    let digits: Vec<char> = text.chars().filter(|&c| c != '-').collect();
    let bytes: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    format!(
        "({})",
        order.map(|index: usize| bytes[index].clone()).join(" ")
    )
}

const PCI: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
const CXL: &str = "68f2d50b-c469-4d8a-bd3d-941a103fd3fc";
const QTG: &str = "f365f9a6-a7de-4071-a66a-b40c0b4f8e52";
const OTHER: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// A request to `_OSC`, and what is to come back: the interface and its revision, the dwords there
/// and the dwords back.
type Exchange<'a> = (&'a str, u32, &'a [u32], &'a [u32]);

/// Calls `_OSC` of a bridge and compares its answers.
#[track_caller]
fn osc(bridge: &str, exchanges: &[Exchange]) {
    let arguments = exchanges.iter().map(|(interface, revision, request, _)| {
        let bytes: Vec<String> = request
            .iter()
            .flat_map(|dword| dword.to_le_bytes())
            .map(|byte| format!("{byte:02X}"))
            .collect();
        format!(
            "{} {revision:X} {:X} ({})",
            uuid(interface),
            request.len(),
            bytes.join(" ")
        )
    });
    let Some(results) = evaluate(&cxl_machine(), &format!("\\_SB.{bridge}._OSC"), arguments) else {
        return;
    };
    for (result, exchange) in results.iter().zip(exchanges) {
        assert_eq!(buffer(result), exchange.3, "{bridge}: {exchange:X?}");
    }
}

/// The dwords of a buffer that acpiexec printed: lines of an offset, bytes and, after slashes, text.
fn buffer(result: &str) -> Vec<u32> {
    let bytes: Vec<u8> = result
        .lines()
        .filter_map(|line| {
            line.split_once("0: ")
                .and_then(|(_, line)| line.split_once("//"))
        })
        .flat_map(|(bytes, _)| bytes.split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes
        .chunks_exact(4)
        .map(|dword| u32::from_le_bytes(dword.try_into().unwrap()))
        .collect()
}

const QUERY: u32 = 1;
const FAILURE: u32 = 1 << 1;
const UNRECOGNIZED_UUID: u32 = 1 << 2;
const UNRECOGNIZED_REVISION: u32 = 1 << 3;
const MASKED: u32 = 1 << 4;

#[test]
fn a_cxl_bridge_grants_hot_plug_pme_aer_the_capability_and_cxl_memory_errors() {
    osc(
        "CX01",
        &[
            (
                CXL,
                1,
                &[QUERY, 0x9F, 0x1D, 0xF, 1],
                &[0, 0x9F, 0x1D, 0xF, 1],
            ),
            (CXL, 1, &[0, 0x9F, 0x1D, 0xF, 1], &[0, 0x9F, 0x1D, 0xF, 1]),
        ],
    );
}

#[test]
fn a_cxl_bridge_masks_what_it_does_not_grant_in_either_list() {
    osc(
        "CX02",
        &[
            (
                CXL,
                1,
                &[QUERY, 0x9F, 0xFF, 0xF, 1],
                &[MASKED, 0x9F, 0x1D, 0xF, 1],
            ),
            (
                CXL,
                1,
                &[0, 0x9F, 0xFF, 0xF, 1],
                &[MASKED, 0x9F, 0x1D, 0xF, 1],
            ),
            (
                CXL,
                1,
                &[QUERY, 0x9F, 0x1D, 0xF, 3],
                &[MASKED, 0x9F, 0x1D, 0xF, 1],
            ),
            (
                CXL,
                1,
                &[0, 0x9F, 0x1D, 0xF, 3],
                &[MASKED, 0x9F, 0x1D, 0xF, 1],
            ),
        ],
    );
}

#[test]
fn a_cxl_bridge_also_speaks_the_pci_interface() {
    osc(
        "CX01",
        &[
            (PCI, 1, &[QUERY, 0x1F, 0x3F], &[MASKED, 0x1F, 0x1D]),
            (PCI, 1, &[0, 0x1F, 0x1D], &[0, 0x1F, 0x1D]),
        ],
    );
}

#[test]
fn an_ordinary_root_grants_no_hot_plug_unless_told_to_and_knows_no_cxl() {
    osc(
        "PC00",
        &[
            (PCI, 1, &[QUERY, 0x1F, 0x1D], &[MASKED, 0x1F, 0x1C]),
            (PCI, 1, &[0, 0x1F, 0x1C], &[0, 0x1F, 0x1C]),
            (
                CXL,
                1,
                &[0, 0x1F, 0x1D, 0xF, 1],
                &[UNRECOGNIZED_UUID, 0x1F, 0x1D, 0xF, 1],
            ),
        ],
    );
}

#[test]
fn without_the_capability_structure_nothing_of_it_is_granted() {
    osc("CX01", &[(PCI, 1, &[0, 0x1F, 0x0D], &[MASKED, 0x1F, 0])]);
}

#[test]
fn osc_refuses_other_interfaces_revisions_and_short_buffers() {
    osc(
        "CX01",
        &[
            (OTHER, 1, &[0, 0x1F, 0x1D], &[UNRECOGNIZED_UUID, 0x1F, 0x1D]),
            (
                CXL,
                2,
                &[0, 0x1F, 0x1D, 0xF, 1],
                &[UNRECOGNIZED_REVISION, 0x1F, 0x1D, 0xF, 1],
            ),
            (CXL, 1, &[0, 0x1F, 0x1D], &[FAILURE, 0x1F, 0x1D]),
        ],
    );
}

/// Read latency, write latency, read bandwidth, write bandwidth.
type Access = [u32; 4];

/// Calls the QTG `_DSM` as Linux does and compares the numbers in its answers: the highest group, then
/// those recommended.
#[track_caller]
fn qtg(machine: &Machine, cases: &[(Access, [u64; 3])]) {
    let arguments = cases
        .iter()
        .map(|([read, write, read_bandwidth, write_bandwidth], _)| {
            format!(
                "{} 1 1 [{read} {write} {read_bandwidth} {write_bandwidth}]",
                uuid(QTG)
            )
        });
    let Some(results) = evaluate(machine, "\\_SB.CXLM._DSM", arguments) else {
        return;
    };
    for (result, (access, expected)) in results.iter().zip(cases) {
        let numbers = result
            .lines()
            .filter_map(|line| line.trim().strip_prefix("[Integer] = "));
        let numbers: Vec<u64> = numbers
            .map(|number| u64::from_str_radix(number, 16).unwrap())
            .collect();
        assert_eq!(numbers, expected, "{access:?}");
    }
}

#[test]
fn the_qtg_is_that_of_the_first_class_whose_bounds_hold() {
    // Class 3: up to 200 and 210 ns, from 10000 and 5000 MB/s. Class 7: up to 500 and 510 ns, from
    // 1000 and 500 MB/s.
    qtg(
        &cxl_machine(),
        &[
            ([200_000, 210_000, 10_000, 5_000], [7, 3, 7]),
            ([200_001, 210_000, 10_000, 5_000], [7, 7, 3]),
            ([200_000, 210_001, 10_000, 5_000], [7, 7, 3]),
            ([200_000, 210_000, 9_999, 5_000], [7, 7, 3]),
            ([200_000, 210_000, 10_000, 4_999], [7, 7, 3]),
        ],
    );
}

#[test]
fn the_qtg_of_what_is_slower_than_every_class_is_the_last() {
    qtg(&cxl_machine(), &[([9_000_000, 9_000_000, 1, 1], [7, 7, 3])]);
}

#[test]
fn the_qtg_is_the_same_for_an_access_stated_in_nanoseconds() {
    qtg(
        &cxl_machine(),
        &[
            ([200, 210, 10_000, 5_000], [7, 3, 7]),
            ([201, 210, 10_000, 5_000], [7, 7, 3]),
        ],
    );
}

#[test]
fn without_classes_the_groups_of_the_windows_are_recommended_for_everything() {
    let mut machine = cxl_machine();
    machine.qos_classes.clear();
    qtg(
        &machine,
        &[
            ([1, 1, 1, 1], [7, 3, 7]),
            ([9_000_000, 9_000_000, 1, 1], [7, 3, 7]),
        ],
    );
}

#[test]
fn the_dsm_names_its_functions_and_refuses_others() {
    let cases = [
        (QTG, 1, 0, "03"),
        (QTG, 1, 2, "00"),
        (QTG, 2, 0, "00"),
        (OTHER, 1, 0, "00"),
    ];
    let arguments = cases.iter().map(|(interface, revision, function, _)| {
        format!("{} {revision} {function} []", uuid(interface))
    });
    let Some(results) = evaluate(&cxl_machine(), "\\_SB.CXLM._DSM", arguments) else {
        return;
    };
    for (result, case) in results.iter().zip(cases) {
        let (_, bytes) = result
            .split_once("0000: ")
            .unwrap_or_else(|| panic!("{result}"));
        assert_eq!(bytes.split_whitespace().next(), Some(case.3), "{case:?}");
    }
}
