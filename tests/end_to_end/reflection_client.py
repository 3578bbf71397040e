"""A gRPC client without generated code: the server describes its services itself."""

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Client:
    """Calls methods of a server by name, with messages made from reflected descriptors."""

    def __init__(self, address, channel_options=()):
        self.channel = grpc.insecure_channel(address, options=channel_options)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return set(self.database.get_services())

    def call(self, method, fields=None, **options):
        service, name = method.rsplit(".", 1)
        descriptor = self.pool.FindServiceByName(service).methods_by_name[name]
        request = message_factory.GetMessageClass(descriptor.input_type)(**(fields or {}))
        kind = self.channel.unary_stream if descriptor.server_streaming else self.channel.unary_unary
        callable_ = kind(f"/{service}/{name}", request_serializer=lambda message: message.SerializeToString(),
                         response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString)
        return callable_(request, **options)
