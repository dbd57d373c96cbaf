"""Annotators that answer well, badly, late or not at all; a file of lines that stays whole."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from ragdiff_jax.cli.main import main
from ragdiff_jax.data.answers import asked, read_answer, schema
from ragdiff_jax.data.attributes import read_attributes
from ragdiff_jax.data.folder import FolderPairs
from ragdiff_jax.data.images import encode_jpeg
from ragdiff_jax.data.records import PairRecord
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.annotation import run
from ragdiff_jax.pipelines.annotation.server import RateLimit, ServerAnnotator

GOOD = {"Category": "Hoodie", "Fit": "loose ", "Collar": "Unknown", "caption": "A red  hoodie."}


class Server(ThreadingHTTPServer):
    """Answers with what `script` holds next: a dict, a text, or a status code; the last one for ever."""

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.lock = list(script), [], threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            answer = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        if answer == "late":
            time.sleep(1.0)
            return
        if answer == "cut off":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
            self.close_connection = True
            return
        if answer == "stalled 503":
            self.wfile.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 900\r\n\r\n")
            time.sleep(1.0)
            self.close_connection = True
            return
        if isinstance(answer, int):
            self.send_response(answer)
            self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(b"not now")
            return
        text = answer if isinstance(answer, str) else json.dumps(answer)
        text = None if answer == "no text" else text
        content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(*script):
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "pairs"
    for name in ("photos", "flats"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (900, 1200), (40 * number, 0, 0)).save(folder / name / f"{number}.jpg")
    return folder


PICTURE = np.zeros((20, 10, 3), np.uint8)


def asker(server, **options):
    pauses = []
    annotator = ServerAnnotator(server.url, "a-model", sleep=pauses.append, **{"retries": 2, "timeout": 5.0} | options)
    return annotator, pauses


def test_the_question_carries_picture_key_and_schema(serve):
    server = serve(GOOD)
    annotator, _ = asker(server, api_key="secret\n")  # as a file of secrets gives it
    answer = annotator.annotate(PICTURE, "photo")
    assert answer.attributes == {"Category": "Hoodie", "Fit": "Loose"} and answer.caption == "A red hoodie."
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body["response_format"]["json_schema"]["schema"] == schema("photo")
    picture, text = body["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,") and "Down Jacket" in text["text"]
    with pytest.raises(UserError) as refused:
        asker(server, api_key="sec\nret")
    assert "API key" in str(refused.value) and "ret" not in str(refused.value).replace("retr", "")


def test_a_flat_lay_is_asked_for_less():
    assert "caption" in schema("photo")["properties"] and "caption" not in schema("flat")["properties"]
    assert "Gender" in asked("photo") and "Gender" not in asked("flat")
    answer = read_answer(json.dumps(GOOD | {"Gender": "Male"}), "flat")
    assert answer.caption == "" and "Gender" not in answer.attributes and answer.invalid["Gender"] == "Male"


def test_values_that_table_6_lacks_are_reported_not_guessed():
    said = '{"Category": "Hoody", "Fit": ["Slim"], "Sleeve Length": "long", "Mood": "x"}'
    answer = read_answer(f"```json\n{said}\n```", "photo")
    assert answer.attributes == {"Sleeve Length": "Long"}
    assert answer.invalid == {"Category": "Hoody", "Fit": "['Slim']", "Mood": "x"}
    for text in ("I see a shirt.", "[1, 2]", "{}", '{"Category": "Unknown"}', '{"Category": '):
        with pytest.raises(ValueError):
            read_answer(text, "photo")


@pytest.mark.parametrize("trouble", ["I see a nice shirt.", "{}", 500, 429, "cut off", "no text", "stalled 503"])
def test_trouble_is_tried_again(serve, trouble):
    server = serve(trouble, GOOD)
    annotator, pauses = asker(server, **({"timeout": 0.9} if trouble == "stalled 503" else {}))
    assert annotator.annotate(PICTURE, "photo").attributes["Category"] == "Hoodie"
    assert len(server.seen) == 2 and pauses == [7.0 if isinstance(trouble, int) else 1.0]


def test_an_annotator_that_never_answers_is_named(serve):
    annotator, pauses = asker(serve("nonsense"))
    with pytest.raises(UserError, match="no usable answer.*3 times"):
        annotator.annotate(PICTURE, "photo")
    assert pauses == [1.0, 2.0]
    late, pauses = asker(serve("late"), timeout=0.2, retries=1)
    with pytest.raises(UserError, match="timed out, 2 times"):
        late.annotate(PICTURE, "photo")
    server = serve(401)
    with pytest.raises(UserError, match="HTTP 401.*key"):
        asker(server)[0].annotate(PICTURE, "photo")
    assert len(server.seen) == 1
    with pytest.raises(UserError, match="refused|3 times"):
        ServerAnnotator("http://127.0.0.1:9/v1", "m", retries=2, sleep=lambda s: None).annotate(PICTURE, "photo")


def test_requests_are_spaced():
    now, pauses = [100.0], []
    limit = RateLimit(120, clock=lambda: now[0], sleep=pauses.append)
    for _ in range(3):
        limit.wait()
    assert pauses == [0.5, 1.0]
    now[0] = 200.0
    limit.wait()
    assert len(pauses) == 2


def test_a_run_that_dies_is_resumed_and_its_lines_are_the_folders_attributes(serve, pairs, capsys, monkeypatch):
    monkeypatch.setattr(run, "STOP_AFTER", 2)
    out = pairs / "attributes.jsonl"
    server = serve(GOOD, GOOD | {"Fit": "Baggy"}, GOOD, 503)
    call = ["annotate", "--source", str(pairs), "--out", str(out), "--annotator", "server", "--name", "m", "--json"]
    call += ["--concurrency", "1", "--retries", "0", "--url"]
    assert main([*call, server.url]) == 2
    assert len(out.read_text().splitlines()) == 3
    with open(out, "a") as file:
        file.write('{"image": "flats/0.jpg", "attri')  # as a kill in the middle of a line leaves it
    capsys.readouterr()
    server = serve(GOOD)
    assert main([*call, server.url]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["written"], result["there_before"], result["failed"]) == (3, 3, 0)
    assert len(server.seen) == 3
    lines = read_attributes(out)
    assert set(lines) == {f"{name}/{number}.jpg" for name in ("photos", "flats") for number in range(3)}
    assert lines["photos/1.jpg"]["invalid"] == {"Fit": "Baggy"} and "Fit" not in lines["photos/1.jpg"]["attributes"]
    assert lines["photos/0.jpg"]["caption"] and "caption" not in lines["flats/0.jpg"]
    record = FolderPairs(pairs)[0]
    assert record.flat_attributes["Category"] == "Hoodie" and record.caption == "A red hoodie."
    assert main([*call, server.url]) == 0 and len(server.seen) == 3


class Picky:
    """Refuses black pictures, and from its `until`th question on everything."""

    name = "picky"

    def __init__(self, until=1000):
        self.left, self.asked = until, 0

    def annotate(self, image, kind):
        self.asked, self.left = self.asked + 1, self.left - 1
        if self.left < 0 or not image.any():
            raise UserError("refused")
        return read_answer(json.dumps(GOOD), kind)


def pictures(*letters):
    """Good, refused and unreadable ones by their letters: g, r, u."""

    def read(letter):
        if letter == "u":
            raise UserError("unreadable")
        return np.full_like(PICTURE, 255 * (letter == "g"))

    letters = "".join(letters)
    return [run.Picture(f"{row}{one}", "flat", lambda one=one: read(one)) for row, one in enumerate(letters)]


def annotate(annotator, of, out):
    failed = []
    count = run.annotate_all(annotator, of, out, concurrency=1, on_error=lambda name, why: failed.append(name[-1]))
    return count, "".join(failed)


def test_pictures_that_are_refused_whenever_they_are_asked_for_stop_no_run(tmp_path):
    out = tmp_path / "a.jsonl"
    assert annotate(Picky(), pictures("r" * 20, "ggg"), out) == (3, "r" * 20)
    assert annotate(Picky(), pictures("r" * 20, "ggg", "rg"), out) == (1, "r" * 21)
    assert annotate(Picky(), pictures("r" * 20, "ggg", "rg"), out) == (0, "r" * 21), "nothing else is left"


def test_pictures_that_cannot_be_read_say_nothing_of_the_annotator(tmp_path):
    annotator = Picky()
    found = annotate(annotator, pictures("g", "u" * 20, "rrg", "u" * 20), tmp_path / "a.jsonl")
    assert found == (2, "u" * 20 + "rr" + "u" * 20)
    assert annotator.asked == 4
    assert annotate(annotator, pictures("u" * 9), tmp_path / "b.jsonl") == (0, "u" * 9)


@pytest.mark.parametrize(
    ("earlier", "until", "questions", "message"),
    [
        ("", 0, 9, "8 pictures and no answer: refused"),
        ("g", 0, 9, "8 pictures and no answer: refused"),
        ("", 5, 14, "stopped after 8 pictures"),
        ("g" * 39, 0, 2, "1 pictures and no answer"),
    ],
)
def test_an_annotator_that_is_gone_stops_the_run_soon(tmp_path, earlier, until, questions, message):
    out, annotator = tmp_path / "a.jsonl", Picky(until)
    if earlier:
        annotate(Picky(), pictures(earlier), out)
    with pytest.raises(UserError, match=message):
        annotate(annotator, pictures("g" * 40), out)
    assert annotator.asked == questions and len(run.names_done(out)) == len(earlier) + until
    assert annotate(Picky(), pictures("g" * 40), out) == (40 - len(earlier) - until, "")


def test_line_ends_that_only_unicode_knows_end_no_line(tmp_path):
    class Says(Picky):
        def annotate(self, image, kind):
            return read_answer(json.dumps(GOOD | {"Fit": "Bag\u2028gy\u2029\x85"}), kind)

    out = tmp_path / "a.jsonl"
    assert annotate(Says(), pictures("g"), out) == (1, "")
    assert "\u2028" in out.read_text() and run.names_done(out) == set(read_attributes(out)) == {"0g"}


def test_a_file_of_anything_else_is_never_touched(tmp_path):
    whole = json.dumps({"image": "0g", "attributes": {}})
    out = tmp_path / "a.jsonl"
    for content in ('{"precious": 1}', "hello\nworld", f'{whole}\n{{"precious": 1}}', "[1]", '{"imag'):
        out.write_text(content)
        if content == '{"imag':
            assert run.names_done(out) == set() and out.read_text() == ""
            continue
        with pytest.raises(UserError, match="another --out"):
            run.names_done(out)
        assert out.read_text() == content
    out.write_text(f"{whole}\n" + whole.replace("0g", "1g"))
    assert run.names_done(out) == {"0g", "1g"} == run.names_done(out), "a whole last line without its end is kept"
    assert annotate(Picky(), pictures("ggg"), out) == (1, "") and len(out.read_text().splitlines()) == 3


def test_a_name_or_answer_that_is_no_utf8_costs_no_run(tmp_path):
    class Says(Picky):
        def annotate(self, image, kind):
            return read_answer(json.dumps(GOOD | {"Fit": "\ud83d"}), kind)

    odd = run.Picture("caf\udce9.jpg", "flat", lambda: PICTURE)
    out = tmp_path / "a.jsonl"
    assert annotate(Says(), [odd, *pictures("g")], out) == (2, "")
    assert run.names_done(out) == {"caf\udce9.jpg", "0g"}


def test_a_data_sets_records_are_read_once_for_their_names_and_no_more_than_the_limit(tmp_path, monkeypatch):
    class Records:
        reads = []

        def __len__(self):
            return 5

        def __getitem__(self, row):
            self.reads.append(row)
            return PairRecord(id=f"r{row}", photo=encode_jpeg(PICTURE), flat=encode_jpeg(PICTURE))

    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setattr(run, "open_pairs", lambda folder, split: Records())
    names = [f"{name}s/r{row}" for name in ("photo", "flat") for row in range(5)]
    for limit, rows in ((None, 5), (2, 2), (7, 5)):
        Records.reads.clear()
        found = run.pictures_of(tmp_path, "train", "both", limit=limit)
        assert [picture.name for picture in found] == names[:limit] and Records.reads == list(range(rows))
    assert found[-1].kind == "flat" and found[-1].read().shape == PICTURE.shape and Records.reads[5:] == [1]


def test_an_unreadable_picture_costs_only_itself(serve, pairs, capsys):
    (pairs / "photos" / "1.jpg").write_bytes(b"no picture")
    call = ["annotate", "--source", str(pairs / "photos"), "--kind", "photo", "--annotator", "server", "--name", "m"]
    assert main([*call, "--out", str(pairs / "a.jsonl"), "--url", serve(GOOD).url, "--json"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["written"] == 2 and lines[-1]["failed"] == 1 and "1.jpg" in lines[0]["input"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--annotator", "server"], "--name"),
        (["--annotator", "clip"], "--model"),
        (["--annotator", "server", "--name", "m", "--url", "file:///etc"], "http://"),
        (["--annotator", "transformers", "--name", "/no/such/folder"], "can't load"),
    ],
)
def test_a_wrong_call_is_one_line(pairs, capsys, more, message):
    code = main(["annotate", "--source", str(pairs), "--out", str(pairs / "a.jsonl"), *more])
    assert code == 2 and message in capsys.readouterr().err
