//! The complete search: what apk's search cannot find, and proof where there is nothing to find.
//!
//! A [`Problem`] becomes clauses for a satisfiability solver (`encode`); what clauses cannot say,
//! that nothing holds itself up, is added while searching (`derivation`). Among all answers the
//! one with the fewest changes to what is installed is taken, then the one that apk's ranking
//! likes best (`optimise`). Where there is no answer, [`explain()`] finds the fewest rules that
//! cannot hold together.
//!
//! Nothing here is random and no clock is asked: the same question has the same answer. It must
//! never be asked before apk's own rules have given up.

mod derivation;
mod encode;
mod explain;
mod model;
mod optimise;
mod problem;
mod question;
mod rank;
mod sat;

pub use explain::{Contradiction, Explanation, Fact, Hint, Rule, explain};
pub use problem::{Candidate, Need, Problem, TagSet, Unavailable, Wanted};
pub(super) use question::Question;

use encode::{Encoding, Grain};
use model::Model;

/// Chooses candidates; `None` if there is no answer.
pub fn solve(problem: &Problem<'_>) -> Option<Vec<usize>> {
    let model = Model::new(problem);
    optimise::best(&model, Encoding::new(&model, Grain::Fixed))
}
