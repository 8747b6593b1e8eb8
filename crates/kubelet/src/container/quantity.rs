//! Reading the API's quantities.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn parse(quantity: &Quantity) -> kminik_meta::Quantity {
    // The API server refuses what does not parse; zero is what an absent amount means everywhere here.
    quantity.0.parse().unwrap_or_default()
}

/// Thousandths, rounded up.
pub(crate) fn milli(quantity: &Quantity) -> i64 {
    parse(quantity).milli_value()
}

/// Whole units, rounded up.
pub(crate) fn value(quantity: &Quantity) -> i64 {
    parse(quantity).value()
}

/// The amount of a resource in a list, if it is there.
pub(crate) fn of<'a>(list: Option<&'a BTreeMap<String, Quantity>>, name: &str) -> Option<&'a Quantity> {
    list?.get(name)
}
