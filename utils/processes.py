"""Several processes that train one model together, as torchrun starts them; a single process is a group of one."""

from torch import distributed
from torch.nn.parallel import DistributedDataParallel


class ProcessGroup:
    """The processes that train one model. Each gets its share of every batch; gradients and means are taken over all
    shares.
    """

    def __init__(self):
        several = distributed.is_initialized()
        self.rank, self.size = (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)

    def broadcast(self, value):
        """What `value` is in the first process."""
        shared = [value]
        if self.size > 1:
            distributed.broadcast_object_list(shared)
        return shared[0]

    def all_gather(self, value):
        """What `value` is in each process, by rank."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def wrap(self, model):
        """`model` for training: after a backward pass its gradients are those of the whole batch, in every process."""
        if self.size > 1:
            model = DistributedDataParallel(model)
            model.register_comm_hook(None, self.add_gradients)
        return model

    def add_gradients(self, _, bucket):
        """The gradient of a batch's mean loss: each process's gradient times its share of the batch, added up."""
        added = distributed.all_reduce(bucket.buffer().mul_(self.share), async_op=True)
        return added.get_future().then(lambda future: future.value()[0])

    def shard(self, batches):
        """Yield every `size`-th review of each batch, starting from number `rank`.

        Sets `share`, the fraction of the batch that they make up. A process for which none is left takes the first
        review, with share 0, because all processes must take part in the backward pass.
        """
        self.reviews = 0  # taken so far
        for words, labels in batches:
            count = len(labels[self.rank :: self.size])
            self.share = count / len(labels)
            mine = slice(self.rank, None, self.size) if count else slice(1)
            self.reviews += len(labels[mine])
            yield words[mine], labels[mine]

    def mean(self, *figures):
        """Turn means over the reviews that this process got from `shard` into means over those of all processes."""
        if self.size == 1:
            return figures
        count, *sums = map(sum, zip(*self.all_gather([self.reviews, *(self.reviews * figure for figure in figures)])))
        return [total / count for total in sums]
