"""Runs the clients of other projects against `chatrex serve`, and a load with faults.

    python serve_clients.py PROGRAM --packages DIR [--seconds 60] [--clients 200]

PROGRAM is the native program. DIR gets the pinned packages of serve_clients.txt with `pip install --target` unless it
has them. The script starts the server itself: on loopback, with nano on the CPU.

1. openai: models, an answer, a streamed grounded answer, errors by class.
2. label-studio-sdk: the labelling configuration is parsed by LabelInterface, the predictions of /predict are validated
   by it.
3. Load: clients that ask one question after another, while other clients leave in the middle, send half a head, a
   huge length, a decompression bomb or nothing. Prints latencies, what was lost and the memory of the server.
"""

import argparse
import base64
import importlib.metadata
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCENE = HERE.parents[1] / "web/static/samples/scene.png"
URL = "data:image/png;base64," + base64.b64encode(SCENE.read_bytes()).decode()
DETECT = "Please detect cat in this image. Answer the question with grounded answer."
CAPTION = ("Please breifly describe this image in one sentence and detect all the mentioned objects. "
           "Answer the question with grounded answer.")
CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="cat"/><Label value="penguin"/></RectangleLabels></View>"""


def install(folder):
    listed = HERE / "serve_clients.txt"
    if not (folder / "openai").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "-r", str(listed)]
        subprocess.run(command, check=True)
    sys.path.insert(0, str(folder))


class Server:
    def __init__(self, program, *more):
        command = [program, "serve", "--model", "nano", "--device", "cpu", "--port", "0", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), "no address"
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        self.place = (host, int(port))

    def memory(self):
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def metric(self, name):
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, f"exit code {code}"


def messages(text):
    return [{"role": "user", "content": [
        {"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": URL}}]}]


def check_openai(server):
    import openai
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0)
    names = [model.id for model in client.models.list()]
    assert names == ["nano"], names
    assert client.models.retrieve("nano").id == "nano"
    whole = client.chat.completions.create(model="nano", messages=messages(DETECT))
    message = whole.choices[0].message
    grounded = message.model_extra["chatrex"]
    stream = client.chat.completions.create(
        model="nano", messages=messages(CAPTION), stream=True, stream_options={"include_usage": True},
        extra_body={"chatrex": {"score": 0.3}})
    text, pieces, last, usage = "", 0, None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            pieces += bool(choice.delta.content)
            last = (choice.delta.model_extra or {}).get("chatrex", last)
    assert text and last["boxes"] and pieces > 1, (text, last)
    named = [(span["text"], span["objects"]) for span in last["spans"] if span.get("objects")]
    assert named and all(index < len(last["boxes"]) for _, objects in named for index in objects), named
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    earlier = messages(DETECT) + [{"role": "assistant", "content": message.content},
                                  {"role": "user", "content": "How many cats are there?"}]
    assert client.chat.completions.create(model="nano", messages=earlier).choices[0].message.content
    remote = [{"role": "user", "content": [
        {"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]}]
    for wanted, arguments in [
        (openai.NotFoundError, {"model": "gpt-4o", "messages": messages(DETECT)}),
        (openai.BadRequestError, {"model": "nano", "messages": remote}),
        (openai.BadRequestError, {"model": "nano", "messages": messages(DETECT), "n": 2}),
    ]:
        try:
            client.chat.completions.create(**arguments)
        except wanted as error:
            assert error.code and error.body["message"], error
        else:
            raise AssertionError(f"no {wanted.__name__}")
    print(f"openai {openai.__version__}: {text!r} in {pieces} pieces, {named}, {usage.total_tokens} tokens")
    print(f"openai: the whole answer has {len(grounded['boxes'])} boxes")


def check_label_studio(server):
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import PredictionValue
    interface = LabelInterface(CONFIG)
    assert json.load(urllib.request.urlopen(server.url + "/health"))["status"] == "UP"
    setup = server.post("/setup", {"project": "1.1", "schema": CONFIG, "hostname": "", "access_token": ""})
    tasks = [{"id": 1, "data": {"image": URL}}]
    results = server.post("/predict", {"tasks": tasks, "label_config": CONFIG, "project": "1.1"})["results"]
    (prediction,) = results
    assert prediction["model_version"] == setup["model_version"]
    value = PredictionValue(**prediction)
    errors = interface.validate_prediction(value.model_dump(exclude_none=True), return_errors=True)
    assert not errors, errors
    for region in prediction["result"]:
        assert interface.validate_region(region), region
    wrong = json.loads(json.dumps(prediction))
    wrong["result"][0]["value"]["rectanglelabels"] = ["dog"]
    assert not interface.validate_prediction(wrong), "the validation refuses a label that is not configured"
    labels = [region["value"]["rectanglelabels"][0] for region in prediction["result"]]
    version = importlib.metadata.version("label-studio-sdk")
    print(f"label-studio-sdk {version}: {len(labels)} regions {labels}, score {prediction['score']}, valid")


def bomb(side):
    import zlib
    file = bytearray(SCENE.read_bytes())
    file[16:24] = side.to_bytes(4, "big") * 2
    file[29:33] = zlib.crc32(bytes(file[12:29])).to_bytes(4, "big")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def request(server, body, more=""):
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: {server.place[0]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{more}\r\n").encode() + body


def ask(server, body):
    """The status and JSON of one question on a connection of its own."""
    with socket.create_connection(server.place, timeout=900) as stream:
        stream.sendall(request(server, body, "Connection: close\r\n"))
        data = b"".join(iter(lambda: stream.recv(65536), b""))
    head, _, text = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(text)


class Load:
    def __init__(self, server, seconds, clients):
        self.server = server
        self.end = time.monotonic() + seconds
        self.seconds, self.clients = seconds, clients
        self.times, self.lost, self.later, self.faults = [], [], 0, {}
        self.lock = threading.Lock()
        questions = [DETECT, "How many cats are there?", "Please detect penguin in this image."]
        self.bodies = [json.dumps({"model": "nano", "max_tokens": 24, "messages": messages(q)}).encode()
                       for q in questions]
        self.expected = [ask(server, body)[1]["choices"][0]["message"]["content"] for body in self.bodies]

    def client(self, number):
        while time.monotonic() < self.end:
            which = number % len(self.bodies)
            start = time.monotonic()
            try:
                status, answer = ask(self.server, self.bodies[which])
                while status == 429:
                    with self.lock:
                        self.later += 1
                    time.sleep(1)
                    status, answer = ask(self.server, self.bodies[which])
                right = status == 200 and answer["choices"][0]["message"]["content"] == self.expected[which]
                fault = None if right else (status, answer)
            except (OSError, ValueError, IndexError) as error:
                fault = repr(error)
            with self.lock:
                self.times.append(time.monotonic() - start)
                if fault:
                    self.lost.append(fault)

    def faulty(self, seed):
        draw = random.Random(seed)
        stream = json.dumps({"model": "nano", "stream": True, "messages": messages(DETECT)}).encode()
        too_many = json.dumps({"model": "nano", "messages": [{"role": "user", "content": [
            {"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": bomb(100_000)}}]}]}).encode()
        kinds = {
            "leaves in the queue": request(self.server, stream),
            "half a head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: ",
            "half a body": request(self.server, stream)[:9000],
            "1 GB declared": request(self.server, b"").replace(b"Length: 0", b"Length: 1073741824"),
            "bomb": request(self.server, too_many),
            "no HTTP": os.urandom(2000),
            "nothing": b"",
        }
        while time.monotonic() < self.end:
            kind = draw.choice(list(kinds))
            try:
                with socket.create_connection(self.server.place, timeout=20) as connection:
                    connection.sendall(kinds[kind])
                    time.sleep(draw.random() * 0.5)
            except OSError:
                pass
            with self.lock:
                self.faults[kind] = self.faults.get(kind, 0) + 1

    def run(self):
        before = self.server.memory()
        start = time.monotonic()
        peak, later = before, []
        threads = [threading.Thread(target=self.client, args=(n,)) for n in range(self.clients)]
        threads += [threading.Thread(target=self.faulty, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        while time.monotonic() < self.end:
            time.sleep(1)
            now = self.server.memory()
            peak = max(peak, now)
            later.append(now)
        for thread in threads:
            thread.join()
        spent = time.monotonic() - start
        time.sleep(1)
        times = sorted(self.times)
        at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
        after, third = self.server.memory(), later[len(later) // 3]
        print(f"load: {self.clients} clients, {self.seconds} s: {len(times)} answers, {len(times) / spent:.1f} per second, "
              f"p50 {at(0.5):.2f} s, p99 {at(0.99):.2f} s, lost {len(self.lost)}, told to come later {self.later}")
        print(f"load: memory {before:.0f} MB before, {third:.0f} MB after a third, {after:.0f} MB after, peak {peak:.0f} MB")
        print(f"load: faults {dict(sorted(self.faults.items()))}, cancelled {self.server.metric('chatrex_cancelled_total'):.0f}, "
              f"waiting {self.server.metric('chatrex_queue_length'):.0f}")
        assert not self.lost, self.lost[:3]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    install(options.packages)
    server = Server(options.program, "--timeout", "900")
    try:
        check_openai(server)
        check_label_studio(server)
        if options.seconds:
            Load(server, options.seconds, options.clients).run()
        server.end()
        print("ended with exit code 0")
    finally:
        server.process.kill()


main()
