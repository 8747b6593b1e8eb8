//! Environment variables that name the services of a namespace, as older programs expect them.

use k8s_openapi::api::core::v1::Service;

/// Variables of one service; nothing for one without a cluster IP or ports.
pub(crate) fn variables(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let Some(ports) = spec.ports.as_ref().filter(|ports| !ports.is_empty()) else { return Vec::new() };
    if ip.is_empty() || ip == "None" {
        return Vec::new();
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let mut out = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_string())];
    for (index, port) in ports.iter().enumerate() {
        if index == 0 {
            out.push((format!("{prefix}_SERVICE_PORT"), port.port.to_string()));
        }
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_ascii_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if index == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        let base = format!("{prefix}_PORT_{}_{protocol}", port.port);
        out.push((base.clone(), url));
        out.push((format!("{base}_PROTO"), lower));
        out.push((format!("{base}_PORT"), port.port.to_string()));
        out.push((format!("{base}_ADDR"), ip.to_string()));
    }
    out
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_urls() {
        let service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "sql-a", "port": 5432, "protocol": "TCP"}]}
        }));
        let all: std::collections::BTreeMap<_, _> = variables(&service.unwrap()).into_iter().collect();
        assert_eq!(all["MY_DB_SERVICE_HOST"], "10.96.0.7");
        assert_eq!(all["MY_DB_SERVICE_PORT_SQL_A"], "5432");
        assert_eq!(all["MY_DB_PORT"], "tcp://10.96.0.7:5432");
        assert_eq!(all["MY_DB_PORT_5432_TCP_ADDR"], "10.96.0.7");
        assert_eq!(all.len(), 8);
    }
}
