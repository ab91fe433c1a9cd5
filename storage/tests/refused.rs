//! What cannot be a record is refused with an error that says why.

#[test]
fn refused_types_say_why() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
