"""nginx as the floor of every proxy figure, and as the backend behind it: one worker each, keep-alive both ways."""

from pathlib import Path

from tests.bench.processes import free_port

ANSWER = (
    '{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"'
    + "ok "
    * 60
    + '"},"finish_reason":"stop"}],"usage":{"prompt_tokens":60,"completion_tokens":60,"total_tokens":120,'
    '"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}'
)


def config(folder: Path, servers: str) -> Path:
    path = folder / f"nginx-{free_port()}.conf"
    path.write_text(
        f"daemon off; worker_processes 1; pid {path}.pid; error_log stderr error;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_body_buffer_size 64k;\n"
        f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n"
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; {servers} }}\n"
    )
    return path


def backend(folder: Path, port: int) -> Path:
    """Answers every request with one chat completion."""
    return config(
        folder,
        f"server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{ANSWER}'; }} }}",
    )


def proxy(folder: Path, port: int, plain: int, streaming: int) -> Path:
    """Passes everything on, byte by byte as it comes: to `streaming` what is under ``/streams/``, to `plain` the rest."""
    passed = 'proxy_http_version 1.1; proxy_buffering off; proxy_set_header connection "";'
    return config(
        folder,
        f"upstream plain {{ server 127.0.0.1:{plain}; keepalive 256; }}\n"
        f"upstream streaming {{ server 127.0.0.1:{streaming}; keepalive 256; }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://plain; {passed} }}\n"
        f"location /streams/ {{ proxy_pass http://streaming/; {passed} }} }}",
    )
