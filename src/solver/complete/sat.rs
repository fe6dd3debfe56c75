//! The satisfiability solver, reduced to what choosing needs: literals, clauses, assumptions with
//! a budget, and the least number of broken wishes.
//!
//! Nothing here is random and no clock is asked; budgets are numbers of conflicts. The same calls
//! give the same answers.

use batsat::{Callbacks, ClauseKind, Solver, SolverInterface, SolverOpts, lbool};
use std::cell::Cell;
use std::collections::HashSet;

pub(super) use batsat::Lit;

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// The budget was used up.
    Unknown,
}

/// Counts conflicts and ends a search that has used up its budget.
#[derive(Default)]
struct Conflicts {
    seen: u64,
    limit: Cell<Option<u64>>,
}

impl Callbacks for Conflicts {
    fn on_new_clause(&mut self, _: &[Lit], kind: ClauseKind) {
        if matches!(kind, ClauseKind::Learnt) {
            self.seen += 1;
        }
    }

    fn stop(&self) -> bool {
        self.limit.get().is_some_and(|limit| self.seen >= limit)
    }
}

/// A set of clauses.
pub(super) struct Sat {
    solver: Solver<Conflicts>,
    scratch: Vec<Lit>,
}

impl Sat {
    pub(super) fn new() -> Self {
        Self {
            solver: Solver::new(SolverOpts::default(), Conflicts::default()),
            scratch: Vec::new(),
        }
    }

    /// Makes a literal; `likely` is the value tried first.
    pub(super) fn literal(&mut self, likely: bool) -> Lit {
        let polarity = if likely { lbool::TRUE } else { lbool::UNDEF };
        Lit::new(self.solver.new_var(polarity, true), true)
    }

    /// Adds a clause: one of the literals is true.
    pub(super) fn clause(&mut self, literals: impl IntoIterator<Item = Lit>) {
        self.scratch.clear();
        self.scratch.extend(literals);
        self.solver.add_clause_reuse(&mut self.scratch);
    }

    /// Searches for values under assumptions; at most `budget` conflicts if given.
    pub(super) fn solve(&mut self, assumptions: &[Lit], budget: Option<u64>) -> Answer {
        let conflicts = self.solver.cb();
        let limit = budget.map(|budget| conflicts.seen.saturating_add(budget.max(1)));
        conflicts.limit.set(limit);
        match self.solver.solve_limited(assumptions) {
            answer if answer == lbool::TRUE => Answer::Yes,
            answer if answer == lbool::FALSE => Answer::No,
            _ => Answer::Unknown,
        }
    }

    /// Returns the number of conflicts of all searches so far.
    pub(super) fn conflicts(&self) -> u64 {
        self.solver.cb().seen
    }

    /// Returns the value of a literal after [`Answer::Yes`].
    pub(super) fn value(&self, literal: Lit) -> bool {
        self.solver.value_lit(literal) == lbool::TRUE
    }

    /// Returns those assumptions that could not hold together after [`Answer::No`].
    pub(super) fn core(&self, assumptions: &[Lit]) -> Vec<Lit> {
        let in_core = |literal: &&Lit| self.solver.unsat_core_contains_var(literal.var());
        assumptions.iter().filter(in_core).copied().collect()
    }

    /// Adds the clauses of "at most one of these", each with the given literals in front.
    pub(super) fn at_most_one(&mut self, literals: &[Lit], front: &[Lit]) {
        const PAIRWISE: usize = 6;
        if literals.len() <= PAIRWISE {
            for (at, a) in literals.iter().enumerate() {
                for b in &literals[..at] {
                    self.clause(front.iter().copied().chain([!*a, !*b]));
                }
            }
            return;
        }
        // `before` is true if one of the literals up to here is.
        let mut before = literals[0];
        for (at, literal) in literals.iter().enumerate().skip(1) {
            self.clause(front.iter().copied().chain([!*literal, !before]));
            if at + 1 < literals.len() {
                let next = self.literal(false);
                self.clause([!before, next]);
                self.clause([!*literal, next]);
                before = next;
            }
        }
    }

    /// Returns a literal that is true if one of these is.
    pub(super) fn any_of(&mut self, literals: &[Lit]) -> Lit {
        if let [one] = literals {
            return *one;
        }
        let any = self.literal(false);
        for literal in literals {
            self.clause([!*literal, any]);
        }
        any
    }
}

/// Something that can be searched under assumptions.
pub(super) trait Search {
    /// Searches for values; the searcher knows its budget.
    fn search(&mut self, assumptions: &[Lit]) -> Answer;
    /// The clauses behind it.
    fn sat(&mut self) -> &mut Sat;
}

impl Search for Sat {
    fn search(&mut self, assumptions: &[Lit]) -> Answer {
        self.solve(assumptions, None)
    }

    fn sat(&mut self) -> &mut Sat {
        self
    }
}

/// Wishes of equal weight, of which as few as possible shall be broken.
///
/// The search starts with all of them and relaxes one set of incompatible wishes after the other
/// (the method of Narodytska and Bacchus, 2014), so its cost follows the number of wishes that
/// can not be had, not the number of wishes.
pub(super) struct Wishes {
    /// What is still assumed; together these say "no more are broken than was proved necessary".
    pub assumed: Vec<Lit>,
    /// How many broken wishes were proved necessary.
    pub broken: usize,
}

impl Wishes {
    pub(super) fn new(wishes: Vec<Lit>) -> Self {
        Self {
            assumed: wishes,
            broken: 0,
        }
    }

    /// Searches for values that break as few wishes as possible.
    ///
    /// After [`Answer::Yes`] the values are those of a best answer. [`Answer::No`] says that
    /// `fixed` alone can not be met. [`Answer::Unknown`] leaves wishes that may be incompatible.
    pub(super) fn fulfil(&mut self, search: &mut impl Search, fixed: &[Lit]) -> Answer {
        loop {
            let assumptions: Vec<Lit> = fixed.iter().chain(&self.assumed).copied().collect();
            let answer = search.search(&assumptions);
            if answer != Answer::No {
                return answer;
            }
            let core: HashSet<Lit> = search.sat().core(&assumptions).into_iter().collect();
            let (incompatible, rest): (Vec<Lit>, Vec<Lit>) =
                self.assumed.iter().partition(|wish| core.contains(wish));
            if incompatible.is_empty() {
                return Answer::No;
            }
            self.assumed = rest;
            self.relax(&incompatible, search.sat());
        }
    }

    /// Replaces wishes of which one must be broken by those that no second one is.
    fn relax(&mut self, incompatible: &[Lit], sat: &mut Sat) {
        self.broken += 1;
        let Some((last, others)) = incompatible.split_last() else {
            return;
        };
        let mut broken_after = !*last;
        for wish in others.iter().rev() {
            let no_second = sat.literal(true);
            sat.clause([!no_second, *wish, !broken_after]);
            self.assumed.push(no_second);
            let broken = sat.literal(false);
            sat.clause([!broken_after, broken]);
            sat.clause([*wish, broken]);
            broken_after = broken;
        }
    }
}
