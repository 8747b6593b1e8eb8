//! Debian's docker-registry, on a loopback port of its own.

use std::net::TcpListener;
use std::process::{Child, Stdio};

use super::host::Host;
use super::image::ImageTar;
use super::run::{command, eventually, run};

/// Ends when dropped.
pub struct Registry {
    process: Child,
    pub port: u16,
    _data: tempfile::TempDir,
}

/// User and password of a registry that asks for them, as bcrypt has them.
pub const LOGIN: (&str, &str) = ("me", "secret");
const HASHED: &str = "me:$2b$05$Yrtx6juvlkg2WkaruZbNtOj2FNM26.hNlLEwVM6Jf553gQ65uqZSO\n";

/// How a registry is served.
#[derive(Default)]
pub struct Served<'a> {
    /// Only with [`LOGIN`].
    pub login: bool,
    /// On this host, at this address, instead of on loopback.
    pub at: Option<(&'a Host, &'a str)>,
    /// Certificate and key, PEM.
    pub tls: Option<(String, String)>,
}

impl Registry {
    pub fn start() -> Self {
        Self::serve(&Served::default())
    }

    pub fn serve(how: &Served<'_>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = how.at.map_or("127.0.0.1", |(_, address)| address);
        let file = |name: &str, content: &str| {
            let path = data.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let mut http = format!("addr: '{address}:{port}'");
        if let Some((certificate, key)) = &how.tls {
            let (certificate, key) = (file("tls.crt", certificate), file("tls.key", key));
            http = format!("{http}, tls: {{certificate: {certificate}, key: {key}}}");
        }
        let auth = match how.login {
            true => format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file("htpasswd", HASHED)),
            false => String::new(),
        };
        let storage = data.path().join("data");
        let config = file(
            "config.yml",
            &format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n{auth}\
                 storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{{http}}}\n",
                storage.display()
            ),
        );
        let arguments = ["serve", config.as_str()];
        let mut command = match how.at {
            Some((host, _)) => host.command("docker-registry", &arguments),
            None => command("docker-registry", &arguments),
        };
        let process =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("docker-registry is installed");
        let registry = Self { process, port, _data: data };
        let probe = format!("cat < /dev/null > /dev/tcp/{address}/{port}");
        eventually("the registry to answer", || match how.at {
            Some((host, _)) => (run(&mut host.command("bash", &["-c", &probe]), None).code == 0).then_some(()),
            None => std::net::TcpStream::connect((address, port)).ok().map(drop),
        });
        registry
    }

    /// `127.0.0.1:port`, of a registry on loopback.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes an archive as `repository` (with tag).
    #[track_caller]
    pub fn push(&self, image: &ImageTar, repository: &str) {
        let source = format!("docker-archive:{}", image.path().display());
        let target = format!("docker://{}/{repository}", self.address());
        run(&mut command("skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]), None)
            .ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
