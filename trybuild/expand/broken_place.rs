#[singleton]
struct Broken {
    field: u32,
}

#[singleton(app = "a")]
const fn constant() {}
