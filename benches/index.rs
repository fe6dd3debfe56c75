//! Reading an index of 20,000 packages: from the file's bytes to records, from records to the table
//! that choosing uses, and from the stored table. `cargo bench --bench index`.

mod made;

use divan::{Bencher, black_box};
use ibex::format::Limits;
use ibex::format::index::UnverifiedIndex;
use ibex::package::PackageTable;

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 20)]
fn inflate_and_parse(bencher: Bencher<'_, '_>) {
    let bytes = made::index();
    bencher.bench(|| {
        let index = UnverifiedIndex::read(black_box(&bytes), &Limits::default());
        index.and_then(|index| index.parse()).expect("a good index")
    });
}

#[divan::bench(sample_count = 20)]
fn build_the_table(bencher: Bencher<'_, '_>) {
    let packages = made::packages();
    bencher.bench(|| PackageTable::build(black_box(&packages)));
}

#[divan::bench(sample_count = 20)]
fn load_the_stored_table(bencher: Bencher<'_, '_>) {
    let table = PackageTable::build(&made::packages());
    let core = table.core_bytes().to_vec();
    let core = bytes::Bytes::from(core);
    bencher
        .bench(|| PackageTable::from_bytes(black_box(core.clone()), None).expect("its own bytes"));
}
