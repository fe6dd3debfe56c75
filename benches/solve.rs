//! Choosing among 20,000 packages: the universe, and worlds of one and of three hundred names.
//! `cargo bench --bench solve`.

mod made;

use divan::{Bencher, black_box};
use ibex::package::{Dependency, PackageTable, World};
use ibex::solver::{self, AddOptions, RepositoryInput, Sources, Universe};
use std::sync::Arc;

fn main() {
    divan::main();
}

fn sources() -> Sources {
    Sources {
        repositories: vec![RepositoryInput {
            table: Arc::new(PackageTable::build(&made::packages())),
            tags: vec![None],
            loaded: true,
            reachable: true,
            local: true,
            url: "made".into(),
        }],
        architectures: vec!["x86_64".into()],
        ..Sources::default()
    }
}

#[divan::bench(args = [1, 300], sample_count = 20)]
fn add(bencher: Bencher<'_, '_>, names: usize) {
    let sources = sources();
    let step = made::PACKAGES / (names + 1);
    let entries: Vec<Dependency> = (1..=names)
        .map(|at| Dependency::any(made::name(at * step)))
        .collect();
    let world = World::default();
    bencher.bench(|| {
        let mut universe = Universe::new(black_box(&sources), &world);
        let request = solver::add(&mut universe, &world, &entries, AddOptions::default());
        let solution = solver::solve(&mut universe, &request);
        assert_eq!(solution.errors, 0, "there is a solution");
        solution.selected().count()
    });
}
