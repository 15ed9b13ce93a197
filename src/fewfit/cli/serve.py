"""The command ``fewfit serve``."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fewfit.cli.options import Store, store_path
from fewfit.cli.output import INTERRUPTED, note, plain_errors
from fewfit.errors import InputError, MissingExtraError
from fewfit.tables.columns import count

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEY = "FEWFIT_API_KEY"


@plain_errors
def serve(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Artifacts, or folders with artifacts in them."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than loopback needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8765,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the key that callers send; or set {KEY}."),
    ] = None,
    allow_fit: Annotated[
        bool, typer.Option("--allow-fit", help="Let callers fit new tasks, into the first DIR.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(help="What new tasks may be fitted on; repeat it. [default: embedded]"),
    ] = None,
    store: Store = "none",
    max_queue: Annotated[
        int, typer.Option(min=1, help="Prompts that wait for one frozen model, at most.")
    ] = 1024,
    max_wait: Annotated[
        float, typer.Option(min=0, help="Seconds of work behind which no request is queued.")
    ] = 1.0,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Prompts that a frozen model is asked at once.")
    ] = 64,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Seconds until a request is given up.")
    ] = 30.0,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of one request.")] = 1000,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of one text.")] = 20_000,
) -> None:
    """Serve fitted tasks over HTTP: one copy of each frozen model, all tasks on top of it.

    GET / is a page for people, and docs/serve.md says what programs can ask, as /openapi.json does.
    SIGHUP, or POST /v1/reload, looks at the folders again; SIGTERM answers what was accepted, and
    ends.
    """
    try:
        import uvicorn

        from fewfit.serve.app import create_app
    except ImportError as error:
        raise MissingExtraError(f'serve needs {error.name}: pip install "fewfit[serve]"') from None
    from fewfit.serve.batching import Limits
    from fewfit.serve.guard import LOCAL, Bounds
    from fewfit.serve.tasks import Tasks

    early: list[int] = []
    if hasattr(signal, "SIGHUP"):  # by itself it would end a server that still loads its tasks
        signal.signal(signal.SIGHUP, lambda number, _: early.append(number))
    key = _key(api_key_file)
    if key is None and host not in _LOOPBACK:
        raise InputError(
            f"--host {host}: others can reach this address, so that a key is needed; set {KEY}, or "
            "name a file with --api-key-file"
        )
    for folder in folders[:1] if allow_fit else []:
        folder.mkdir(parents=True, exist_ok=True)
    tasks = Tasks(folders, store=store_path(store))
    for folder, why in tasks.report.broken.items():
        note(f"warning: {folder} is not served: {why}")
    models = tuple(model or ["embedded"])
    for name in models if allow_fit else ():
        tasks.open_model(name)  # nobody could fit on one that is none
    app = create_app(
        tasks,
        allow_fit=allow_fit,
        api_key=key,
        # A key keeps other sites out as well, and a proxy in front has a name of its own.
        hosts=LOCAL if host in _LOOPBACK and key is None else None,
        limits=Limits(max_batch, max_queue, deadline, max_wait),
        bounds=Bounds(texts=max_texts, characters=max_characters),
        models=models,
    )
    note(f"{count(len(tasks.names()), 'task')} on {count(tasks.n_models(), 'frozen model')}")
    config = uvicorn.Config(
        app,
        host,
        port,
        log_level="warning",
        access_log=False,  # it would hold what callers put into addresses
        server_header=False,
        timeout_graceful_shutdown=int(deadline) + 1,
    )
    _run(uvicorn.Server(config), tasks, app.state.queue, host, early)


def _run(server: Any, tasks: Any, queue: Any, host: str, early: list[int]) -> None:
    """Serve until a signal says stop; SIGHUP reloads, and so does one that came too early."""
    import asyncio

    async def told() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
            if server.should_exit:
                return
        port = server.servers[0].sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        note(f"http://{shown}:{port}/ (Ctrl-C ends)")

    async def reload() -> None:
        report = await asyncio.to_thread(tasks.reload)
        queue.forget()
        note(f"reloaded: {len(report.loaded)} new, {len(report.gone)} gone")
        for folder, why in report.broken.items():
            note(f"warning: {folder} is not served: {why}")

    warned: set[tuple[str, str, int]] = set()

    def warn(message: Any, category: type[Warning], file: str, line: int, *_: Any) -> None:
        kind = category.__name__, Path(file).name, line
        if kind not in warned:  # and not what it says: that may be a user's text
            warned.add(kind)
            note("warning: {} at {}:{}; it is said once".format(*kind))

    async def main() -> None:
        warnings.showwarning = warn
        reloading: set[Any] = set()

        def again() -> None:
            reloading.add(asyncio.ensure_future(reload()))

        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, again)
        if early:
            again()
        telling = asyncio.ensure_future(told())
        await server.serve()
        telling.cancel()

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except SystemExit as error:  # the reason is on standard error
        where = f"--host {host} --port {server.config.port}"
        raise InputError(f"{where}: the server cannot listen there; name others") from error


def _key(file: Path | None) -> str | None:
    """Return the key from a file or the environment; never from an argument, which others see."""
    if file is not None:
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "is no text"
            raise InputError(f"--api-key-file: {file}: {why}") from error
    else:
        key = os.environ.get(KEY, "").strip()
        if not key:
            return None
    if len(key) < 16 or not (key.isascii() and key.isprintable()):
        raise InputError("the API key is one line of at least 16 characters, all of ASCII")
    return key
