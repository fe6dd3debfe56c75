//! A real server, nginx: TLS with certificates on both sides, HTTP/2, connections that stay open,
//! conditional requests, ranges, passwords and redirects, judged by what its log says.

use crate::support::{Run, Sandbox, data, run};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Returns whether a program is there; in CI it has to be.
fn has(program: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(found || !ci, "{program} is missing: see .ci/run");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

struct Nginx {
    folder: tempfile::TempDir,
    child: Child,
    plain: u16,
    secure: u16,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).current_dir(folder);
    run(&mut command).success();
}

impl Nginx {
    fn start() -> Option<Self> {
        let repository = data("alpine-v3.19")?;
        if !has("nginx") || !has("openssl") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let here = folder.path();
        std::os::unix::fs::symlink(repository, here.join("main")).expect("a link");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            here,
            &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 9"),
        );
        std::fs::write(here.join("names"), "subjectAltName=DNS:localhost\n").expect("a file");
        std::fs::write(here.join("use"), "extendedKeyUsage=clientAuth\n").expect("a file");
        for (name, more) in [("server", " -extfile names"), ("client", " -extfile use")] {
            openssl(
                here,
                &format!("req -new {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
            );
            let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 9";
            openssl(
                here,
                &format!("x509 -req -in {name}.csr {sign} -out {name}.pem{more}"),
            );
        }
        // user:secret
        std::fs::write(here.join("passwords"), "user:{PLAIN}secret\n").expect("a file");
        let (plain, secure) = (free_port(), free_port());
        let place = here.display();
        let config = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error;
             events {{ worker_connections 64; }}
             http {{
               log_format words '$status $server_protocol $connection_requests \"$http_range\" $uri';
               access_log {place}/log words;
               client_body_temp_path {place}/t1; proxy_temp_path {place}/t2;
               fastcgi_temp_path {place}/t3; uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;
               server {{
                 listen 127.0.0.1:{plain};
                 location /open/ {{ alias {place}/; }}
                 location /busy/ {{ return 503; }}
                 location /moved/ {{ return 307 /open/main/x86_64/$arg_x; }}
                 location ~ ^/away/(.*) {{ return 308 ../../../open/$1; }}
                 location /locked/ {{
                   alias {place}/; auth_basic words; auth_basic_user_file {place}/passwords;
                 }}
               }}
               server {{
                 listen 127.0.0.1:{secure} ssl http2;
                 ssl_certificate {place}/server.pem; ssl_certificate_key {place}/server.key;
                 ssl_client_certificate {place}/ca.pem; ssl_verify_client on;
                 location / {{ alias {place}/; }}
               }}
             }}"
        );
        std::fs::write(here.join("config"), config).expect("a file");
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(here)
            .arg("-c")
            .arg(here.join("config"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("nginx starts");
        let nginx = Self {
            folder,
            child,
            plain,
            secure,
        };
        let connects = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !(connects(plain) && connects(secure)) {
            let error = || std::fs::read_to_string(nginx.folder.path().join("error"));
            assert!(std::time::Instant::now() < until, "nginx: {:?}", error());
            std::thread::yield_now();
        }
        Some(nginx)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Returns the log so far, and begins a new one. A line comes after its answer was sent.
    fn log(&self) -> Vec<String> {
        let path = self.folder.path().join("log");
        let until = std::time::Instant::now() + Duration::from_secs(5);
        let mut text = String::new();
        while text.is_empty() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            text = std::fs::read_to_string(&path).unwrap_or_default();
        }
        let file = std::fs::File::options().write(true).open(path);
        file.and_then(|file| file.set_len(0)).expect("a log");
        text.lines().map(str::to_owned).collect()
    }

    /// Adds packages to a new root, with these variables.
    fn add(&self, url: &str, variables: &[(&str, &str)], more: &[&str]) -> (Sandbox, Run) {
        let sandbox = Sandbox::new();
        sandbox
            .trust(&["alpine-v3.19/keys"])
            .expect("the keys are beside the packages");
        let mut command = sandbox.ibex();
        command.env("IBEX_CACHE_DIR", sandbox.beside("cache"));
        command.envs(variables.iter().copied());
        command
            .args(["--arch", "x86_64", "--timeout", "5", "-X", url])
            .args(more);
        command.args(["add", "--initdb", "--no-scripts", "openssh"]);
        let run = run(&mut command);
        (sandbox, run)
    }
}

#[test]
fn a_real_server_is_used_well() {
    let Some(nginx) = Nginx::start() else { return };
    let plain = format!("http://127.0.0.1:{}", nginx.plain);
    let (root, run) = nginx.add(&format!("{plain}/open/main"), &[], &[]);
    run.success();
    let log = nginx.log();
    assert!(log.len() > 10, "{log:#?}");
    assert!(
        log.iter().all(|line| line.starts_with("200 HTTP/1.1 ")),
        "{log:#?}"
    );
    // Connections are used again: fewer than requests.
    let first = log
        .iter()
        .filter(|line| line.split(' ').nth(2) == Some("1"))
        .count();
    assert!(first < log.len() && first <= 12, "{log:#?}");

    // The index is asked for again only if it changed.
    let mut command = root.ibex();
    command.env("IBEX_CACHE_DIR", root.beside("cache"));
    command.args(["-X", &format!("{plain}/open/main"), "update"]);
    crate::support::run(&mut command).success();
    let log = nginx.log();
    assert!(log.len() == 1 && log[0].starts_with("304 "), "{log:#?}");

    // Redirects of the newer kinds, relative ones too; a password; a busy mirror.
    for place in ["away/main", "locked/main"] {
        let with = plain.replace("http://", "http://user:secret@");
        nginx.add(&format!("{with}/{place}"), &[], &[]).1.success();
    }
    let (_, refused) = nginx.add(&format!("{plain}/locked/main"), &[], &[]);
    assert!(
        refused.output.contains("HTTP 401: Unauthorized"),
        "{}",
        refused.output
    );
    let (_, busy) = nginx.add(&format!("{plain}/busy"), &[], &[]);
    assert!(
        busy.output.contains("HTTP 503: Service Unavailable"),
        "{}",
        busy.output
    );
}

#[test]
fn certificates_are_checked_on_both_sides() {
    let Some(nginx) = Nginx::start() else { return };
    let url = format!("https://localhost:{}/main", nginx.secure);
    let (ca, pem, key) = (
        nginx.path("ca.pem"),
        nginx.path("client.pem"),
        nginx.path("client.key"),
    );
    let certificate = [
        ("SSL_CLIENT_CERT_FILE", pem.as_str()),
        ("SSL_CLIENT_KEY_FILE", &key),
    ];
    let trusted = [("SSL_CERT_FILE", ca.as_str())];
    nginx
        .add(&url, &[&certificate[..], &trusted].concat(), &[])
        .1
        .success();
    let log = nginx.log();
    assert!(
        log.iter().all(|line| line.starts_with("200 HTTP/2.0 ")),
        "{log:#?}"
    );
    let first = log
        .iter()
        .filter(|line| line.split(' ').nth(2) == Some("1"))
        .count();
    assert_eq!(first, 1, "one connection carries everything: {log:#?}");

    // Nobody vouches for the server, it is another host, or it wants to know who we are.
    let (_, run) = nginx.add(&url, &certificate, &[]);
    assert!(
        run.output.contains("TLS: server certificate not trusted"),
        "{}",
        run.output
    );
    let other = format!("https://127.0.0.1:{}/main", nginx.secure);
    let (_, run) = nginx.add(&other, &[&certificate[..], &trusted].concat(), &[]);
    assert!(
        run.output.contains("TLS: server hostname mismatch"),
        "{}",
        run.output
    );
    let (_, run) = nginx.add(&url, &trusted, &[]);
    assert_ne!(run.code, 0, "{}", run.output);
    assert!(!run.output.contains("unable to select"), "{}", run.output);

    // What the user turns off is not checked.
    nginx
        .add(&url, &certificate, &["--no-check-certificate"])
        .1
        .success();
    let any = [
        &certificate[..],
        &trusted,
        &[("SSL_NO_VERIFY_HOSTNAME", "1")],
    ]
    .concat();
    nginx.add(&other, &any, &[]).1.success();
}
