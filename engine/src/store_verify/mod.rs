//! Checks a whole store that nobody has open: every checksum, every sequence, every reference from one file to another.
//!
//! ```text
//!  survey: STORE, journals, checkpoint files, the strict open's own verdict on them, directories (one thread)
//!    -> segments and extents, one after the other from a queue (a thread a core, each with one that reads ahead)
//!    -> times across segments -> report
//! ```
//!
//! Promises: nothing is written, and no writer comes in meanwhile (a shared lock). Damage does not end it. What a crash leaves
//! behind and an open takes care of is told as a note, not as damage.
//!
//! What it leaves to others: changing anything ([`crate::salvage()`] copies what is intact).

mod findings;
mod progress;
mod report;
mod work;

use std::path::Path;
use std::time::Instant;

pub use progress::{VerifyOptions, VerifyProgress};
pub use report::StoreReport;
pub(crate) use work::pass;

use self::findings::Findings;
use self::report::FINDINGS_MAX;
use crate::survey::{Ground, Survey, SurveyError};

/// Checks the store in this directory; see `docs/verify-and-salvage.md` for what is looked at.
///
/// Takes a shared lock: a store that is open for writing is refused, and opening it fails until this returns.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use redex::{Redex, RedexFileConfig, VerifyOptions};
///
/// let redex = Redex::open(dir.path())?;
/// let file = redex.open_file("audit", RedexFileConfig::default().with_persistent(true))?;
/// file.append_durable(b"an event").wait()?;
/// redex.close().wait()?;
///
/// let report = redex::verify(dir.path(), &VerifyOptions::default())?;
/// assert!(report.is_clean(), "{report}");
/// assert_eq!(report.events, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`SurveyError`]: there is no store, it is in use, or the system refuses. Damage is no error but a finding.
pub fn verify(dir: impl AsRef<Path>, options: &VerifyOptions) -> Result<StoreReport, SurveyError> {
    let base = dir.as_ref();
    verify_ground(&Ground::open(base)?, base, options)
}

/// The same, of files that are open already.
pub(crate) fn verify_ground(ground: &Ground, base: &Path, options: &VerifyOptions) -> Result<StoreReport, SurveyError> {
    let begun = Instant::now();
    let mut survey = Survey::read(&ground.disk, base)?;
    let mut report = StoreReport::new(base, &survey);
    let mut findings = Findings::new(FINDINGS_MAX);
    std::mem::take(&mut survey.findings).into_iter().for_each(|finding| findings.add(finding));
    survey.gap_findings().into_iter().for_each(|finding| findings.add(finding));
    let io = |source| SurveyError::Io { what: "start the threads that read", path: base.to_owned(), source };
    work::check_segments(ground, &survey, options, &mut report, &mut findings).map_err(io)?;
    report.finish(findings, begun.elapsed());
    Ok(report)
}
