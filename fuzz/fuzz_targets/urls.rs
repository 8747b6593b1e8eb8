#![no_main]

use http::{Method, Uri};
use kminik_apiserver::http::info::{Query, RequestInfo};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(uri) = Uri::try_from(data) else { return };
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let info = RequestInfo::of(&method, &uri);
        assert!(!info.is_resource || !info.resource.is_empty());
        let _ = info.long_running();
    }
    let query = Query::parse(uri.query().unwrap_or_default());
    let _ = (query.duration("timeout"), query.integer("limit"), query.flag("watch"));
});
