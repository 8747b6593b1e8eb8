//! `kminik status`: minikube's fields, formats and exit bits.

use std::process::ExitCode;

use serde_json::json;

use super::{Context, Output};
use crate::ops::status::{self, Status, Word};
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::{Failure, MK_USAGE, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short = 'o', long, value_enum)]
    output: Option<Output>,
    /// Template with the fields .Name .Host .Kubelet .APIServer .Kubeconfig
    #[arg(short = 'f', long)]
    format: Option<String>,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    if args.output.is_some() && args.format.is_some() {
        return Err(Failure::new(&MK_USAGE, "Cannot use both --output and --format options"));
    }
    let profile = Profile::load(&context.home, &context.profile)?;
    let status = status::get(&context.home, &profile).await?;
    match (&args.format, args.output.unwrap_or_default()) {
        (Some(template), _) => printer.data(&render(template, &status)?),
        (None, Output::Json) => printer.data(
            &json!({
                "Name": status.name, "Host": status.host.to_string(), "Kubelet": status.kubelet.to_string(),
                "APIServer": status.apiserver.to_string(), "Kubeconfig": status.kubeconfig.to_string(), "Worker": false,
            })
            .to_string(),
        ),
        (None, Output::Text) => {
            printer.data(&format!(
                "{}\ntype: Control Plane\nhost: {}\nkubelet: {}\napiserver: {}\nkubeconfig: {}\n",
                status.name, status.host, status.kubelet, status.apiserver, status.kubeconfig
            ));
            for note in &status.notes {
                printer.warning(note);
            }
            if status.kubeconfig == Word::Misconfigured {
                printer.warning(&format!(
                    "kubectl does not lead to this cluster. To mend it, run 'kminik start -p {}'",
                    status.name
                ));
            }
        }
    }
    Ok(ExitCode::from(status.exit_bits()))
}

/// The part of Go's templates that people use here: `{{.Field}}` and text.
fn render(template: &str, status: &Status) -> Outcome<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        text.push_str(&rest[..start]);
        let bad = || Failure::new(&MK_USAGE, format!("--format={template:?} is not a template of known fields"));
        let end = rest[start..].find("}}").ok_or_else(bad)? + start;
        let value = match rest[start + 2..end].trim() {
            ".Name" => status.name.clone(),
            ".Host" => status.host.to_string(),
            ".Kubelet" => status.kubelet.to_string(),
            ".APIServer" => status.apiserver.to_string(),
            ".Kubeconfig" => status.kubeconfig.to_string(),
            ".Worker" => "false".to_owned(),
            _ => return Err(bad()),
        };
        text.push_str(&value);
        rest = &rest[end + 2..];
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_and_bits() {
        let status = Status {
            name: "x".into(),
            host: Word::Running,
            kubelet: Word::Stopped,
            apiserver: Word::Stopped,
            kubeconfig: Word::Misconfigured,
            notes: vec![],
        };
        assert_eq!(render("h={{.Host}} {{ .Name }}", &status).unwrap(), "h=Running x");
        assert!(render("{{.Nope}}", &status).is_err());
        assert!(render("{{.Host", &status).is_err());
        assert_eq!(status.exit_bits(), 6);
    }
}
