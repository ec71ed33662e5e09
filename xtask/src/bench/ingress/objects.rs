//! The objects that the gateway under measurement serves, behind the least of an API server: lists, and watches in which
//! nothing ever happens. The cost of a cluster is none of the gateway's.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use base64::Engine;
use serde_json::{Value, json};

use crate::bench::ingress::HOST;

const NAMESPACE: &str = "bench";

/// The lists of every collection that the gateway watches.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    origin: SocketAddr,
    certificate: String,
    key: String,
}

impl Objects {
    /// One host with a certificate, one Service with one endpoint.
    pub(crate) fn new(origin: SocketAddr, certificate: &Path, key: &Path) -> io::Result<Self> {
        let encoded = |path| Ok::<_, io::Error>(base64::engine::general_purpose::STANDARD.encode(std::fs::read(path)?));
        Ok(Self { origin, certificate: encoded(certificate)?, key: encoded(key)? })
    }

    /// Serves until the process ends; returns a kubeconfig.
    pub(crate) fn serve(self) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = format!("http://{}", listener.local_addr()?);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = self.clone();
                std::thread::spawn(move || objects.answer(&stream));
            }
        });
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": server}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "users": [{"name": "bench", "user": {}}],
        });
        Ok(kubeconfig.to_string())
    }

    /// One connection, request after request.
    fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(target) = read_target(&mut reader)? {
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let collection = path.rsplit('/').next().unwrap_or_default();
            let asks = |flag: &str| query.split('&').any(|pair| pair == flag);
            if asks("sendInitialEvents=true") {
                let status = json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422});
                reply(&mut writer, "422 Unprocessable Entity", &status)?;
            } else if asks("watch=true") || asks("watch=1") {
                writer.write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
                )?;
                // Nothing happens until the gateway ends.
                io::copy(&mut reader, &mut io::sink())?;
                return Ok(());
            } else {
                let list =
                    json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": self.items(collection)});
                reply(&mut writer, "200 OK", &list)?;
            }
        }
        Ok(())
    }

    fn items(&self, collection: &str) -> Vec<Value> {
        let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE, "resourceVersion": "1", "uid": name});
        let port = json!({"name": "http", "port": 80});
        let object = match collection {
            "ingressclasses" => json!({
                "metadata": {"name": "tidegate", "resourceVersion": "1"}, "spec": {"controller": "tidegate.dev/ingress"},
            }),
            "ingresses" => {
                let backend = json!({"service": {"name": "origin", "port": {"name": "http"}}});
                let http = json!({"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]});
                json!({
                    "metadata": metadata("bench"),
                    "spec": {
                        "ingressClassName": "tidegate",
                        "tls": [{"hosts": [HOST], "secretName": "certificate"}],
                        "rules": [{"host": HOST, "http": http}],
                    },
                })
            }
            "services" => json!({"metadata": metadata("origin"), "spec": {"ipFamilies": ["IPv4"], "ports": [port]}}),
            "endpointslices" => {
                let mut metadata = metadata("origin-1");
                metadata["labels"] = json!({"kubernetes.io/service-name": "origin"});
                json!({
                    "metadata": metadata,
                    "addressType": "IPv4",
                    "ports": [{"name": "http", "port": self.origin.port(), "protocol": "TCP"}],
                    "endpoints": [{"addresses": [self.origin.ip()], "conditions": {"ready": true}}],
                })
            }
            "secrets" => json!({
                "metadata": metadata("certificate"), "type": "kubernetes.io/tls",
                "data": {"tls.crt": self.certificate, "tls.key": self.key},
            }),
            _ => return Vec::new(),
        };
        vec![object]
    }
}

/// Reads a request without regard to anything but its target; none at the end of the connection.
fn read_target(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            Some(_) => {}
            None => break,
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(first.split(' ').nth(1).map(str::to_owned))
}

fn reply(writer: &mut impl Write, status: &str, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    writer.write_all((head + &body).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::read_target;

    #[test]
    fn requests_are_read_one_by_one() {
        let mut bytes = b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nxyGET /b?c=d HTTP/1.1\r\n\r\n".as_slice();
        assert_eq!(read_target(&mut bytes).unwrap().as_deref(), Some("/a"));
        assert_eq!(read_target(&mut bytes).unwrap().as_deref(), Some("/b?c=d"));
        assert_eq!(read_target(&mut bytes).unwrap(), None);
    }
}
