//! The pages of the book as documentation of empty modules, so that their snippets are tests (`cargo test --doc`).

macro_rules! pages {
    ($($name:ident $page:literal)*) => {$(
        #[doc = include_str!($page)]
        mod $name {}
    )*};
}

pages! {
    readme "../README.md"
    architecture "../ARCHITECTURE.md"
    first_steps "../docs/first_steps.md"
    concepts "../docs/concepts.md"
    sources "../docs/howto/sources.md"
    sinks "../docs/howto/sinks.md"
    bad_records "../docs/howto/bad_records.md"
    process_functions "../docs/howto/process_functions.md"
    state "../docs/howto/state.md"
    checkpoints "../docs/howto/checkpoints.md"
    simulation "../docs/howto/simulation.md"
    metrics "../docs/howto/metrics.md"
    logs "../docs/howto/logs.md"
    testing "../docs/howto/testing.md"
    embedding "../docs/howto/embedding.md"
    exchange "../docs/internals/exchange.md"
    keys "../docs/internals/keys.md"
    worker "../docs/internals/worker.md"
    watermarks "../docs/internals/watermarks.md"
}
