"""An optional third judge: any server with an OpenAI-compatible ``/chat/completions``, asked for one label of the list.

The text is sent to that server: use it for text that may leave this machine. The order of the labels is shuffled for
each text, because models favour some places of a list; the text itself decides the order, so that the verdict on it
does not depend on the texts beside it. Temperature is 0. The answer is one label, so the probabilities are 0 or 1.
"""

import hashlib
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from affectlens.errors import SteerError
from affectlens.progress import tracked
from affectlens.steering.judging.scoring import Record
from affectlens.steering.judging.verdicts import NEUTRAL, Verdicts, as_verdicts, present
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.types import Json

Transport = Callable[[str, dict[str, str], bytes, float], bytes]
_RETRIED = (408, 409, 429, 500, 502, 503, 504)
_ASKED = (
    "Which emotion does the writer of the text below express? Answer with JSON and nothing else, "
    '{{"label": "..."}}, with one of these labels: {labels}. Use "neutral" if the text expresses none.\n\n'
    "Text:\n{text}"
)


@dataclass(frozen=True, eq=False)
class EndpointJudge:
    """A judge behind an address. Made by :func:`endpoint_judge`.

    Attributes:
        url: of the API, without ``/chat/completions``.
        model: the server's name of it.
        key: sent as a bearer token; "" for none.
        labels: the classes to choose from.
        tries: requests for a text, at most.
        wait: seconds before the second request; twice as many before each further one.
        timeout: seconds for a request.
        seed: of the order of the labels.
        transport: takes the address, headers, body and timeout, and gives the body of the answer.
        records: its figures on held-out texts, if somebody measured them with :func:`..scoring.record`.
        name: in tables.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    labels: tuple[str, ...] = (*EMOTIONS, NEUTRAL)
    tries: int = 4
    wait: float = 1.0
    timeout: float = 60.0
    seed: int = 0
    transport: Transport = field(default=lambda *given: _post(*given), repr=False)
    records: tuple[Record, ...] = ()
    name: str = "endpoint"

    def judge(self, texts: Sequence[str], *, progress: bool | None = None) -> Verdicts:
        """One request a text that is not empty; an answer that is no label of the list is an abstention.

        Args:
            texts: any number.
            progress: show a bar; by default where a person is looking.

        Raises:
            SteerError: a server that refuses, or that does not answer in ``tries`` requests.
        """
        rows = present(texts)
        found = np.zeros((len(rows), len(self.labels) + 1))
        for i, row in enumerate(tracked(rows, f"asking {self.model}", show=progress)):
            label = self._label(texts[row])
            found[i, self.labels.index(label) if label in self.labels else -1] = 1.0
        return as_verdicts(self.name, self.labels, len(texts), rows, found)

    def trust(self) -> pd.DataFrame:
        """Its held-out figures; no rows unless ``records`` were given."""
        return pd.concat([one.table() for one in self.records], ignore_index=True) if self.records else pd.DataFrame()

    def _label(self, text: str) -> str:
        order = list(self.labels)
        random.Random(hashlib.sha256(f"{self.seed} {text}".encode()).digest()).shuffle(order)
        asked = _ASKED.format(labels=", ".join(order), text=text)
        body: Json = {"model": self.model, "temperature": 0, "messages": [{"role": "user", "content": asked}]}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        said = self._send(json.dumps(body).encode(), headers)
        try:
            content = str(json.loads(said)["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise SteerError(f"{self.url} did not answer as /chat/completions does: {said[:80]!r}.") from None
        return _read_label(content)

    def _send(self, body: bytes, headers: dict[str, str]) -> bytes:
        address = self.url.rstrip("/") + "/chat/completions"
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                return self.transport(address, headers, body, self.timeout)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                if error.code not in _RETRIED:
                    break
            except (OSError, TimeoutError) as error:
                reason = str(error)
        raise SteerError(f"{address} gave no verdict ({reason}): check the address, the model's name and the key.")


def endpoint_judge(
    url: str, model: str, *, key_env: str = "", labels: Sequence[str] = (*EMOTIONS, NEUTRAL), tries: int = 4,
    timeout: float = 60.0, seed: int = 0,
) -> EndpointJudge:  # fmt: skip
    """A judge over an OpenAI-compatible endpoint.

    Args:
        url: of the API, such as ``http://localhost:8000/v1``.
        model: the server's name of the model.
        key_env: the environment variable that holds the key; "" sends none.
        labels: the classes to choose from.
        tries: requests for a text, at most.
        timeout: seconds for a request.
        seed: of the order of the labels.

    Raises:
        SteerError: an address that is not http or https, a variable that is not set, or tries below 1.
    """
    if not url.startswith(("http://", "https://")):
        raise SteerError(f"{url!r} is no address of an endpoint: give one such as http://localhost:8000/v1.")
    if key_env and not os.environ.get(key_env):
        raise SteerError(f"The environment variable {key_env} is not set: put the endpoint's key into it.")
    if tries < 1:
        raise SteerError(f"tries is {tries}, expected 1 or more.")
    key = os.environ.get(key_env, "") if key_env else ""
    return EndpointJudge(url, model, key, tuple(labels), tries=tries, timeout=timeout, seed=seed)


def _read_label(content: str) -> str:
    """The label of an answer, which may be fenced or have words around the JSON; "" if there is none.

    >>> _read_label('Sure: {"label": "Joy"}.'), _read_label("joy or fear")
    ('joy', '')
    """
    start, end = content.find("{"), content.rfind("}")
    try:
        found = json.loads(content[start : end + 1])["label"]
    except (ValueError, KeyError, TypeError):
        found = content.strip(" .\"'\n")
    return str(found).strip().lower() if " " not in str(found).strip() else ""


def _post(address: str, headers: dict[str, str], body: bytes, timeout: float) -> bytes:
    request = urllib.request.Request(address, body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return bytes(answer.read())
