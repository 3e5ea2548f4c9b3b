//! The kept inputs, and as many that are made up here, through every target.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::TestRunner;

/// Inputs made up per target; with some 50 accesses each, well over 10,000 accesses.
const MADE_UP: u32 = 400;

#[test]
fn every_target_withstands_the_corpus() {
    for (name, target) in fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&directory).unwrap() {
            target(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", directory.display());
    }
}

/// What a target asserts of its model holds for any input; one for which it does not is made as short as can be.
#[test]
fn the_properties_of_every_target_hold_for_any_input() {
    let config = ProptestConfig {
        cases: MADE_UP,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    for (name, target) in fuzz::TARGETS {
        let mut runner = TestRunner::new(config.clone());
        let result = runner.run(&vec(any::<u8>(), 0..1024), |input| {
            target(&input);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
