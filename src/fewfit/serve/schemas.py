"""What requests and answers hold; the OpenAPI page is made from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

Text = StrictStr | dict[StrictStr, StrictStr]
"""A text, or a row with the fields of the template."""

Label = StrictStr | StrictBool | StrictInt

Name = Annotated[StrictStr, Field(min_length=1, max_length=64)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictRequest(_Body):
    """Texts, and the tasks that they are labelled for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"texts": ["I was charged twice"], "tasks": ["topics"]},
                {"texts": "I was charged twice"},
            ]
        },
    )

    texts: Text | Annotated[list[Text], Field(min_length=1)]
    tasks: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    deadline: Annotated[float, Field(ge=0.1, le=3600, strict=True)] | None = None


class Labelled(BaseModel):
    """What a task says of a text.

    `label` is the most probable class, and `labels` those of a task with several per text; null
    where `status` is "failed", of which `reason` says why.
    """

    label: Label | None = None
    labels: list[Label] | None = None
    probabilities: dict[str, float] | None = None
    status: str = "ok"
    reason: str | None = None


class PredictResponse(BaseModel):
    """For each task the texts in their order, and what was asked of the frozen models."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "results": {
                        "topics": [
                            {
                                "label": "billing",
                                "probabilities": {"billing": 0.9, "delivery": 0.1},
                                "status": "ok",
                            }
                        ]
                    },
                    "queries": 1,
                }
            ]
        }
    )

    results: dict[str, list[Labelled]]
    queries: int


class TaskInfo(BaseModel):
    """A task that is served."""

    name: str
    model: str | None
    fields: list[str]
    templates: list[str]
    classes: list[Label]
    words: list[list[str]]
    decoder: str
    examples: int
    several_labels: bool
    expected_accuracy: dict[str, Any] | None


class TaskList(BaseModel):
    """All tasks, and the artifacts that are not served."""

    tasks: list[TaskInfo]
    broken: dict[str, str]


class Example(_Body):
    """A text and its label."""

    text: Text
    label: Label


class FitRequest(_Body):
    """A new task, from labelled texts."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "mood",
                    "examples": [
                        {"text": "Great fun", "label": "positive"},
                        {"text": "A dull mess", "label": "negative"},
                    ],
                    "template": "{text} In summary, it was {mask}.",
                    "labels": {"positive": "great", "negative": "bad"},
                }
            ]
        },
    )

    name: Name
    examples: Annotated[list[Example], Field(min_length=1)]
    model: StrictStr | None = None
    template: StrictStr | None = None
    labels: dict[StrictStr, StrictStr | list[StrictStr]] | None = None
    unlabelled: list[Text] | None = None
    replace: StrictBool = False


class FitResponse(BaseModel):
    """The task that is served now, and what it cost."""

    task: TaskInfo
    queries: int
    seconds: float


class SuggestRequest(_Body):
    """A pool of texts, and those of them that have a label already."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"task": "topics", "texts": ["Where is it?", "A refund, please"], "n": 1}]
        },
    )

    task: Name
    texts: Annotated[list[Text], Field(min_length=1)]
    n: Annotated[StrictInt, Field(ge=1, le=1000)] = 10
    labelled: list[Example] = []


class Suggested(BaseModel):
    """A text worth labelling: its place in `texts`, and why."""

    row: int
    text: Text
    reason: str


class SuggestResponse(BaseModel):
    """The most useful text first."""

    suggestions: list[Suggested]
    queries: int


class ReloadResponse(BaseModel):
    """What a look at the folders came to."""

    loaded: list[str]
    kept: list[str]
    gone: list[str]
    broken: dict[str, str]


class Problem(BaseModel):
    """What is wrong, in one sentence, and a word for programs."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every answer that is an error."""

    error: Problem


class Health(BaseModel):
    """Whether requests are answered."""

    status: str
    tasks: int
    failing: dict[str, str] = {}


class Question(BaseModel):
    """A question about the state: one answer of a few is chosen."""

    type: StrictStr = "choice"
    instructions: StrictStr | None = None
    criteria: Annotated[dict[StrictStr, Any], Field(min_length=2)]


class SystemOneRequest(BaseModel):
    """The wire format of ``/v1/systemone``; `model` is the name of a task."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "topics",
                    "state": "I was charged twice",
                    "questions": {
                        "label": {
                            "type": "choice",
                            "criteria": {"billing": "about money", "delivery": "about parcels"},
                        }
                    },
                }
            ]
        }
    )

    model: Name
    state: StrictStr
    questions: Annotated[dict[StrictStr, Question], Field(min_length=1, max_length=64)]


class Chosen(BaseModel):
    """The answer to a question."""

    type: str = "choice"
    choice: str
    probabilities: dict[str, float]


class SystemOneResponse(BaseModel):
    """Answers by the name of their question."""

    model: str
    answers: dict[str, Chosen]
    usage: dict[str, int]
