//! What a verb does, in steps. Commands parse and call; drivers, profile and kubeconfig do the work.

pub mod addons;
pub mod bars;
pub mod cache;
pub mod client;
pub mod copy;
pub mod delete;
pub mod diagnosis;
pub mod doctor;
pub mod export;
pub mod image;
pub mod kubectl;
pub mod mirror;
pub mod mounts;
pub mod node_image;
pub mod nodes;
pub mod pause;
pub mod pki;
pub mod registries;
pub mod service;
pub mod snapshot;
pub mod start;
pub mod status;
pub mod stop;
pub mod sync;
pub mod units;
