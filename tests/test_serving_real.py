"""The server on the embedded model with its bundled directions."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI

from affectlens.model import LensModel
from affectlens.steering import bundled, load_directions, write
from affectlens.steering.serving import served

pytestmark = pytest.mark.real
NAME = "smollm2-135m"
PROMPT = "Tell me about your day."


@pytest.fixture(scope="module")
def client(smol: LensModel) -> Iterator[OpenAI]:
    with served(smol, slots=32) as url, OpenAI(base_url=f"{url}/v1", api_key="none", timeout=600) as one:
        yield one


def test_replies_are_the_librarys_own(client: OpenAI, smol: LensModel) -> None:
    assert NAME in bundled()
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"joy": 0.6, "fear": -0.3}, {"doses": {"joy": 0.6, "fear": -0.3}}),
        ({"doses": {"sadness": 1.0}, "schedule": "decay(8)", "positions": "response"},
         {"doses": {"sadness": 1.0}, "schedule": "decay(8)", "positions": "response"}),
        ({"doses": {"joy": 1.0}, "gate": "fear>50"}, {"doses": {"joy": 1.0}, "gate": "fear>50"}),
    ]  # fmt: skip
    for emotion, how in asked:
        body: dict[str, Any] = {"model": NAME, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0,
                                "max_tokens": 16, "extra_body": {"emotion": emotion}}  # fmt: skip
        whole = client.chat.completions.create(**body)
        pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**body, stream=True)]
        expected = write(smol, [PROMPT], max_new_tokens=16, progress=False, **how)[0]
        assert whole.choices[0].message.content == "".join(pieces) == expected
        assert whole.model_dump()["emotion"]["doses"] == how["doses"]


def test_32_clients_get_what_each_gets_alone(client: OpenAI, smol: LensModel) -> None:
    emotions = load_directions(NAME).emotions
    doses = [{emotions[i % len(emotions)]: round(0.1 * i - 1.2, 1)} for i in range(32)]

    def ask(emotion: dict[str, float]) -> str:
        given: Any = {"model": NAME, "prompt": "My day was", "temperature": 0, "max_tokens": 5}
        return client.completions.create(**given, extra_body={"emotion": emotion}).choices[0].text

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(ask, doses))
    alone = [write(smol, ["My day was"], doses=one, chat=False, max_new_tokens=5, progress=False)[0] for one in doses]
    assert together == alone
    assert len(set(together)) > 3
