//! What the macro accepts, and what it says where it doesn't.

#[test]
fn functions_of_every_shape_compile_and_run() {
    trybuild::TestCases::new().pass("trybuild/pass/*.rs");
}

#[test]
fn every_mistake_is_reported_at_its_place() {
    trybuild::TestCases::new().compile_fail("trybuild/fail/*.rs");
}
