"""The OpenAPI document and its viewer (Swagger UI), served from our own files: nothing is loaded from elsewhere."""

from __future__ import annotations

import inspect
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Request, Response, Router, get
from litestar.enums import MediaType
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.response import Redirect
from litestar.static_files import create_static_files_router  # pyright: ignore[reportUnknownVariableType]
from litestar.typing import FieldDefinition

STATIC: Final = Path(__file__).parent / "static"

_CONTENT_SECURITY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The browser itself is told to load nothing from elsewhere."""


class Structs(OpenAPISchemaPlugin):
    """How the structs of bodies and answers are shown: Litestar's own way cannot take a payload as a default."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Whether it is a struct, or a payload in one."""
        if field_definition.annotation is msgspec.Raw:
            return True
        return not field_definition.is_union and field_definition.is_subclass_of(msgspec.Struct)

    @staticmethod
    def is_undefined_sentinel(value: Any) -> bool:
        """What may be left out is not required; it has no type of its own."""
        return value is msgspec.UNSET or value is msgspec.UnsetType

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """A payload may be any JSON; a struct has its fields, and where it says so no others."""
        kind: Any = field_definition.annotation
        if kind is msgspec.Raw:
            return Schema(description="Any JSON.")
        hints = field_definition.get_type_hints(include_extras=True, resolve_generics=True)
        fields = msgspec.structs.fields(kind)
        schema: Schema = schema_creator.create_component_schema(
            field_definition,
            required=sorted(field.encode_name for field in fields if field.required),
            property_fields={
                field.encode_name: FieldDefinition.from_annotation(hints[field.name], name=field.encode_name)
                for field in fields
            },
        )
        schema.description = inspect.getdoc(kind)
        if kind.__struct_config__.forbid_unknown_fields:
            schema.additional_properties = False
        return schema


class Viewer(OpenAPIRenderPlugin):
    """The page that shows the document."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)
        self._page = (STATIC / "schema.html").read_bytes()

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page; it loads the document by itself."""
        del request, openapi_schema
        return self._page


@get("/", include_in_schema=False)
async def front() -> Redirect:
    """Whoever comes without a path is shown what there is."""
    return Redirect("/schema")


async def _as_is_or_problem(response: Response[Any]) -> Response[Any]:
    """Litestar's own page for a path below /schema that is none becomes a problem, like all others."""
    if response.status_code == NotFoundException.status_code:
        raise NotFoundException
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY
    return response


def files() -> Router:
    """The files of the viewer and of our pages."""
    return create_static_files_router("/static", directories=[STATIC])


def openapi() -> OpenAPIConfig:
    """How the document is made and where it is served."""
    return OpenAPIConfig(
        title="Troth",
        version=metadata.version("troth"),
        description=(
            "Durable workflows on Postgres: start them, look at promises, settle them. Every refusal is"
            " application/problem+json (RFC 9457)."
        ),
        use_handler_docstrings=True,
        render_plugins=[Viewer(), JsonRenderPlugin(media_type=MediaType.JSON), YamlRenderPlugin()],
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=_as_is_or_problem
        ),
    )
