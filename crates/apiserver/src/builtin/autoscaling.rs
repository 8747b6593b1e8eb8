//! The autoscaling group: one set of objects in two versions, stored in the second.

use kminik_meta::Gvk;
use kminik_meta::convert::autoscaler;

use crate::registry::def::{Conversion, ResourceDef, VersionDef};

pub(super) fn rows() -> Vec<ResourceDef> {
    let mut row = ResourceDef::new("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
        .short(&["hpa"])
        .in_all()
        .with_status();
    let conversion = Conversion { to_stored: autoscaler::to_v2, from_stored: autoscaler::to_v1 };
    row.versions.push(VersionDef {
        stored: false,
        conversion: Some(conversion),
        ..VersionDef::stored(&Gvk::new("autoscaling", "v1", "HorizontalPodAutoscaler"))
    });
    vec![row]
}
