ARTIFACT_SERIALIZERS_DESC = [("box", ".box_serializer.BoxSerializer")]
