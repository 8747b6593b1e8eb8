//! placeholder
use crate::{home::Home, profile::Profile, printer::Printer, drivers::Userland, reason::Outcome};
pub async fn pull(_h: &Home, _p: &Profile, _r: &str, _pr: &Printer) -> Outcome<Userland> { Ok(Userland::BuiltIn) }
