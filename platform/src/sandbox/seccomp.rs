//! stub
pub(super) struct Sockets {
    pub inet: bool,
    pub unix: bool,
}
pub(super) struct Filter;
impl Filter {
    pub(super) fn new(_s: Sockets) -> Option<Filter> {
        Some(Filter)
    }
    pub(super) fn install(&self) -> std::io::Result<()> {
        Ok(())
    }
}
