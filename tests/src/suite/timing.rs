//! What CXL memory costs a program where the configuration has a clock for it. Of times only the order is looked at here;
//! `cargo xtask bench` shows how far apart they are.

use anyhow::{Result, ensure};

use super::Test;
use super::region::stock;
use crate::guest::Lab;
use crate::timing::chase;

pub const TESTS: &[Test] = crate::tests!["timing":
    a_program_takes_the_longer_the_further_away_its_expander_is,
];

fn a_program_takes_the_longer_the_further_away_its_expander_is(lab: &Lab) -> Result<()> {
    let chases = chase(lab, stock(lab)?)?;
    for chase in &chases {
        eprintln!("{chase}");
        // How many loads there were is an estimate; what each costs is not.
        let asked = chase.asked / chase.model();
        ensure!((0.95..1.05).contains(&asked), "{asked}: {chase:?}");
        ensure!((0.5..2.0).contains(&chase.counted), "{chase:?}");
    }
    ensure!(
        chases.is_sorted_by(|near, far| near.longer() < far.longer()),
        "{chases:?}"
    );
    // What a load takes besides is not the same at all times on a busy host, but never so different.
    ensure!(
        matches!(chases[..], [nearest, .., farthest] if nearest.took < farthest.took),
        "{chases:?}"
    );
    Ok(())
}
