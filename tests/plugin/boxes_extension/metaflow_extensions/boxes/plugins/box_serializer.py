"""A serializer of Metaflow's, as its documentation has one written."""

import json

from boxes import Box, Leaky
from metaflow.datastore.artifacts.serializer import (
    ArtifactSerializer,
    SerializationFormat,
    SerializationMetadata,
    SerializedBlob,
)


class BoxSerializer(ArtifactSerializer):
    TYPE = "box"

    @classmethod
    def can_serialize(cls, obj):
        return isinstance(obj, Box)

    @classmethod
    def can_deserialize(cls, metadata):
        return metadata.encoding == "box-json-v1"

    @classmethod
    def serialize(cls, obj, format=SerializationFormat.STORAGE):
        if isinstance(obj, Leaky):
            raise OSError("it leaks")
        blob = json.dumps(obj.content).encode()
        return (
            [SerializedBlob(blob)],
            SerializationMetadata(str(type(obj)), len(blob), "box-json-v1", {"n": len(obj.content)}),
        )

    @classmethod
    def deserialize(cls, data, metadata=None, format=SerializationFormat.STORAGE):
        content = json.loads(data[0])
        assert len(content) == metadata.serializer_info["n"]
        return Box(content)
