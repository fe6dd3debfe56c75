//! Being asked for, as a derivation that starts at the world.
//!
//! "Nothing is installed that is not asked for" is not a set of clauses: two packages that only ask
//! for each other would satisfy "each is asked for by something". The clauses say just that much;
//! after each answer [`Derivation::unfounded`] looks for such circles and returns clauses that
//! exclude them, and the search goes on. Every clause holds in all true answers and excludes at
//! least the present one, so this ends. (Answer set solvers treat rules in the same way.)

use super::sat::{Lit, Sat};

/// Something that is true only if it can be derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AtomId(pub u32);

/// One way to derive an atom: all of its parts.
#[derive(Clone, Debug)]
struct Body {
    /// True only if all parts are.
    literal: Lit,
    atoms: Vec<AtomId>,
    conditions: Vec<Lit>,
}

#[derive(Clone, Debug)]
struct Atom {
    literal: Lit,
    /// What must be true for the atom to count at all; `None` for those that stand for a choice
    /// of others.
    gate: Option<Lit>,
    /// The atom needs no derivation unless this holds.
    guard: Option<Lit>,
    /// The world derives it.
    fact: bool,
    bodies: Vec<Body>,
}

/// Atoms and how each can be derived.
#[derive(Clone, Debug, Default)]
pub(super) struct Derivation {
    atoms: Vec<Atom>,
}

impl Derivation {
    /// Makes an atom that counts only while `gate` is true.
    pub(super) fn gated(&mut self, literal: Lit, gate: Lit, guard: Option<Lit>) -> AtomId {
        self.push(Atom {
            literal,
            gate: Some(gate),
            guard,
            fact: false,
            bodies: Vec::new(),
        })
    }

    /// Makes an atom that stands for what derives it.
    pub(super) fn open(&mut self, literal: Lit) -> AtomId {
        self.push(Atom {
            literal,
            gate: None,
            guard: None,
            fact: false,
            bodies: Vec::new(),
        })
    }

    fn push(&mut self, atom: Atom) -> AtomId {
        self.atoms.push(atom);
        AtomId(self.atoms.len() as u32 - 1)
    }

    pub(super) fn literal(&self, atom: AtomId) -> Lit {
        self.atoms[atom.0 as usize].literal
    }

    /// The world derives the atom.
    pub(super) fn fact(&mut self, atom: AtomId) {
        self.atoms[atom.0 as usize].fact = true;
    }

    /// The atom follows from another.
    pub(super) fn follows(&mut self, atom: AtomId, from: AtomId) {
        let literal = self.literal(from);
        self.atoms[atom.0 as usize].bodies.push(Body {
            literal,
            atoms: vec![from],
            conditions: Vec::new(),
        });
    }

    /// The atom follows from several together, under conditions.
    pub(super) fn follows_all(
        &mut self,
        sat: &mut Sat,
        atom: AtomId,
        from: Vec<AtomId>,
        conditions: Vec<Lit>,
    ) {
        let literal = sat.literal(false);
        for part in &from {
            sat.clause([!literal, self.literal(*part)]);
        }
        for condition in &conditions {
            sat.clause([!literal, *condition]);
        }
        self.atoms[atom.0 as usize].bodies.push(Body {
            literal,
            atoms: from,
            conditions,
        });
    }

    /// Adds the clauses "each atom is derived by one of its bodies".
    pub(super) fn complete(&self, sat: &mut Sat) {
        for atom in self.atoms.iter().filter(|atom| !atom.fact) {
            let bodies = atom.bodies.iter().map(|body| body.literal);
            let front = atom.guard.map(|guard| !guard);
            sat.clause(front.into_iter().chain([!atom.literal]).chain(bodies));
        }
    }

    /// Looks at an answer; returns clauses that exclude what holds itself up, none if all is well.
    pub(super) fn unfounded(&self, sat: &Sat) -> Vec<Vec<Lit>> {
        let founded = self.founded(sat);
        let stray = |at: usize| !founded[at] && sat.value(self.atoms[at].literal);
        if !(0..self.atoms.len()).any(stray) {
            return Vec::new();
        }
        let circles = self.circles(sat, &stray);
        circles.iter().flat_map(|c| self.exclude(c)).collect()
    }

    /// Derives what can be derived from the world, given the chosen packages.
    fn founded(&self, sat: &Sat) -> Vec<bool> {
        let mut missing: Vec<Vec<usize>> = Vec::with_capacity(self.atoms.len());
        let mut uses: Vec<Vec<(u32, u32)>> = vec![Vec::new(); self.atoms.len()];
        let mut founded = vec![false; self.atoms.len()];
        let mut ready = Vec::new();
        let counts = |atom: &Atom| atom.gate.is_none_or(|gate| sat.value(gate));
        for (at, atom) in self.atoms.iter().enumerate() {
            let mut needed = Vec::with_capacity(atom.bodies.len());
            for (number, body) in atom.bodies.iter().enumerate() {
                let met = body.conditions.iter().all(|literal| sat.value(*literal));
                // A body whose conditions fail keeps one part that never comes.
                needed.push(body.atoms.len() + usize::from(!met));
                for part in &body.atoms {
                    uses[part.0 as usize].push((at as u32, number as u32));
                }
            }
            let free = atom.guard.is_some_and(|guard| !sat.value(guard));
            if counts(atom) && (atom.fact || free || needed.contains(&0)) {
                founded[at] = true;
                ready.push(at);
            }
            missing.push(needed);
        }
        while let Some(at) = ready.pop() {
            for (user, number) in &uses[at] {
                let (user, number) = (*user as usize, *number as usize);
                missing[user][number] -= 1;
                if missing[user][number] == 0 && !founded[user] && counts(&self.atoms[user]) {
                    founded[user] = true;
                    ready.push(user);
                }
            }
        }
        founded
    }

    /// Returns the sets of stray atoms that hold themselves up without help of other stray ones.
    fn circles(&self, sat: &Sat, stray: &dyn Fn(usize) -> bool) -> Vec<Vec<usize>> {
        let mut graph = petgraph::graph::DiGraph::<usize, ()>::new();
        let mut nodes = vec![None; self.atoms.len()];
        for (at, node) in nodes.iter_mut().enumerate() {
            *node = stray(at).then(|| graph.add_node(at));
        }
        for (at, node) in nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let bodies = self.atoms[at].bodies.iter();
            for body in bodies.filter(|body| sat.value(body.literal)) {
                for part in &body.atoms {
                    if let Some(from) = nodes[part.0 as usize] {
                        graph.add_edge(from, *node, ());
                    }
                }
            }
        }
        let components = petgraph::algo::tarjan_scc(&graph);
        let mut component_of = vec![0; graph.node_count()];
        for (number, component) in components.iter().enumerate() {
            for node in component {
                component_of[node.index()] = number;
            }
        }
        let mut helped = vec![false; components.len()];
        for edge in graph.raw_edges() {
            let (from, to) = (edge.source().index(), edge.target().index());
            helped[component_of[to]] |= component_of[from] != component_of[to];
        }
        let alone = components.iter().zip(helped).filter(|(_, helped)| !helped);
        let atoms = alone.map(|(component, _)| {
            let mut circle: Vec<usize> = component.iter().map(|node| graph[*node]).collect();
            circle.sort_unstable();
            circle
        });
        atoms.collect()
    }

    /// Returns the clauses "no atom of the circle without something from outside the circle".
    fn exclude(&self, circle: &[usize]) -> Vec<Vec<Lit>> {
        let inside = |atom: &AtomId| circle.binary_search(&(atom.0 as usize)).is_ok();
        let mut help: Vec<Lit> = Vec::new();
        for at in circle {
            let atom = &self.atoms[*at];
            help.extend(atom.guard.map(|guard| !guard));
            let outside = atom.bodies.iter();
            let outside = outside.filter(|body| !body.atoms.iter().any(inside));
            help.extend(outside.map(|body| body.literal));
        }
        help.sort_unstable();
        help.dedup();
        let clause = |at: &usize| {
            let mut clause = help.clone();
            clause.push(!self.atoms[*at].literal);
            clause
        };
        circle.iter().map(clause).collect()
    }
}
